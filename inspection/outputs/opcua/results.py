"""Results as the companion specification holds them, and the store that clients ask."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from asyncua import ua

from inspection.control import RecipeInfo

COMPLETED, FAILED = 1, 4  # ResultStateDataType: 0 undefined, 1 completed, 2 processing, 3 aborted, 4 failed
SOFTWARE = "lightsout-inspection"


def new(kind: str, **fields: Any) -> Any:
    """A value of one of the companion specification's structures, whose classes asyncua makes from the nodeset."""
    return getattr(ua, kind)(**fields)


@dataclass(kw_only=True, slots=True)
class Job:
    """What a client has started: one part, or all parts until it stops.

    Attributes:
        number: of the part, for a single job. published: its result has been sent, or never will be.
        meas, part: what the client named them. verdict_at: monotonic seconds at which the line was seen to have the
            verdict before its message came. ended_by: the method that ends it.
    """

    id: str
    single: bool
    number: int | None = None
    meas: str = ""
    published: bool = False
    verdict_at: float | None = None
    ended_by: str | None = None


def internal_id(recipe: RecipeInfo) -> Any:
    """RecipeIdInternalDataType: the recipe's id, and the hash of what it says once it has been loaded."""
    return _recipe_id("RecipeIdInternalDataType", recipe.id, recipe.hash, recipe.product)


def external_id(recipe: RecipeInfo) -> Any:
    """RecipeIdExternalDataType: the recipe's id and the hash of what it says."""
    return _recipe_id("RecipeIdExternalDataType", recipe.id, recipe.hash, recipe.product)


def _recipe_id(kind: str, name: str, digest: str | None, product: str) -> Any:
    return new(
        kind,
        Id=name,
        Hash=bytes.fromhex(digest) if digest else None,
        HashAlgorithm="SHA-256" if digest else None,
        Description=ua.LocalizedText(product, "en") if product else None,
    )


def configuration_id(models: dict[str, str]) -> Any:
    """ConfigurationIdDataType: what judged, by the software's version and the model files' hashes.

    Its hash is the SHA-256 of the JSON document in `Description`; the id is the software, its version and the beginning
    of that hash.
    """
    version = metadata.version(SOFTWARE)
    document = json.dumps({"software": SOFTWARE, "version": version, "models": models}, sort_keys=True)
    digest = hashlib.sha256(document.encode())
    return new(
        "ConfigurationIdDataType",
        Id=f"{SOFTWARE}-{version}-{digest.hexdigest()[:12]}",
        Version=version,
        Hash=digest.digest(),
        HashAlgorithm="SHA-256",
        Description=ua.LocalizedText(document, "en"),
    )


def make(body: dict[str, Any], job: Job | None) -> Any:
    """ResultDataType of one part, from `PartResult.to_dict()`.

    ResultContent: the whole result as a JSON document; verdict; score (the highest raw score of its views, NaN where
    none was judged); part.
    """
    triggered = datetime.datetime.fromtimestamp(body["triggered"], datetime.UTC)
    seconds = body["seconds"]
    decided = float(seconds.get("decided", 0.0))
    last = seconds.get("last_frame")
    scores = [view["score"] for view in body["views"] if view["score"] is not None]
    return new(
        "ResultDataType",
        ResultId=new("ResultIdDataType", Id=str(body["number"])),
        HasTransferableDataOnFile=False,
        IsPartial=False,
        ResultState=FAILED if body["verdict"] == "ERROR" else COMPLETED,
        MeasId=new("MeasIdDataType", Id=job.meas) if job and job.meas else None,
        PartId=new("PartIdDataType", Id=body["part"]),
        ExternalRecipeId=_recipe_id("RecipeIdExternalDataType", body["recipe"], body["recipe_hash"], body["product"]),
        InternalRecipeId=_recipe_id("RecipeIdInternalDataType", body["recipe"], body["recipe_hash"], body["product"]),
        ProductId=new("ProductIdDataType", Id=body["product"]),
        InternalConfigurationId=configuration_id(body["models"]),
        JobId=new("JobIdDataType", Id=job.id if job else ""),
        CreationTime=triggered + datetime.timedelta(seconds=decided),
        ProcessingTimes=new(
            "ProcessingTimesDataType",
            StartTime=triggered,
            EndTime=triggered + datetime.timedelta(seconds=decided),
            AcquisitionDuration=None if last is None else last * 1000.0,
            ProcessingDuration=None if last is None else (decided - last) * 1000.0,
        ),
        ResultContent=[
            ua.Variant(json.dumps(body, allow_nan=False), ua.VariantType.String),
            ua.Variant(body["verdict"], ua.VariantType.String),
            ua.Variant(max(scores, default=float("nan")), ua.VariantType.Double),
            ua.Variant(body["part"], ua.VariantType.String),
        ],
    )


class Results:
    """The latest results, by id; the oldest goes when there are more than `most`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[str, Any] = OrderedDict()

    def __contains__(self, result_id: object) -> bool:
        return result_id in self._kept

    def put(self, result: Any) -> None:
        """Keeps a result."""
        self._kept[result.ResultId.Id] = result
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)

    def get(self, result_id: str) -> Any | None:
        """The result; None: there is none, or it has gone."""
        return self._kept.get(result_id)

    def matching(self, state: int, **wanted: str) -> Iterator[Any]:
        """The results, latest first, whose ids are those that are not empty; `state` 0: any."""
        for result in reversed(self._kept.values()):
            if state not in (0, result.ResultState):
                continue
            ids = {name: getattr(result, name) for name, value in wanted.items() if value}
            if all(found is not None and found.Id == wanted[name] for name, found in ids.items()):
                yield result
