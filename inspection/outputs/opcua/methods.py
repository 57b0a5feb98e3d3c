"""The methods of the companion specification: what clients send is checked here, and becomes a call of the machine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from asyncua import Server, ua

from inspection.control import NotReady, RecipeInfo
from inspection.errors import ConfigInvalid
from inspection.outputs.opcua.events import Conditions
from inspection.outputs.opcua.machine import Machine, Refused
from inspection.outputs.opcua.results import internal_id, new
from inspection.outputs.opcua.space import AUTOMATIC, MACHINE, RECIPES, Space

Callback = Callable[..., Awaitable[Any]]
Function = Callable[..., Awaitable[list[ua.Variant]]]
MOST = 1000  # entries of one list

# The kinds of arguments, as this module names them, and what a client may send for each.
BUILT_IN = {
    "Boolean": ua.VariantType.Boolean,
    "Int32": ua.VariantType.Int32,
    "UInt32": ua.VariantType.UInt32,
    "String": ua.VariantType.String,
    "ByteString": ua.VariantType.ByteString,
    "LocalizedText": ua.VariantType.LocalizedText,
    "TriState": ua.VariantType.Int32,
}
# An argument that may be left null, and what it then is.
NULL: dict[str, Any] = {"String": "", "LocalizedText": ua.LocalizedText(""), "Parameters": []}

OKAY = ua.Variant(0, ua.VariantType.Int32)
NO_HANDLE = ua.Variant(0, ua.VariantType.UInt32)  # lists are complete answers: there is nothing to release

MEAS, PART, PRODUCT, JOB = "MeasIdDataType", "PartIdDataType", "ProductIdDataType", "JobIdDataType"
EXTERNAL, INTERNAL = "RecipeIdExternalDataType", "RecipeIdInternalDataType"
CONFIGURATION, RESULT = "ConfigurationIdDataType", "ResultIdDataType"
CAUSE = ("Int32", "String")
START = (MEAS, PART, EXTERNAL, PRODUCT, "Parameters")


class Methods:
    """Links every method that is offered."""

    def __init__(self, server: Server, space: Space, machine: Machine, conditions: Conditions) -> None:
        self._server = server
        self._space = space
        self._machine = machine
        self._conditions = conditions

    def link(self) -> None:
        """Gives each method's node its function."""
        recipes, results, configurations = "RecipeManagement", "ResultManagement", "ConfigurationManagement"
        offered: tuple[tuple[str, tuple[str, ...], Function], ...] = (
            (f"{MACHINE}.SelectModeAutomatic", (), self._select_mode_automatic),
            (f"{MACHINE}.Halt", CAUSE, self._halt),
            (f"{MACHINE}.Reset", CAUSE, self._reset),
            (f"{MACHINE}.ConfirmAll", ("LocalizedText",), self._confirm_all),
            (f"{AUTOMATIC}.StartSingleJob", START, self._start_single),
            (f"{AUTOMATIC}.StartContinuous", START, self._start_continuous),
            (f"{AUTOMATIC}.Stop", CAUSE, self._stop),
            (f"{AUTOMATIC}.Abort", CAUSE, self._abort),
            (f"{recipes}.PrepareRecipe", (EXTERNAL, INTERNAL), self._prepare_recipe),
            (f"{recipes}.UnprepareRecipe", (EXTERNAL, INTERNAL), self._unprepare_recipe),
            (f"{recipes}.PrepareProduct", (PRODUCT,), self._prepare_product),
            (f"{recipes}.UnprepareProduct", (PRODUCT,), self._unprepare_product),
            (f"{recipes}.GetRecipeListFiltered",
             (EXTERNAL, PRODUCT, "TriState", "UInt32", "UInt32", "Int32"), self._list_recipes),
            (f"{results}.GetResultById", (RESULT, "Int32"), self._result),
            (f"{results}.GetResultComponentsById", (RESULT, "Int32"), self._result_components),
            (f"{results}.GetResultListFiltered",
             ("Int32", MEAS, PART, EXTERNAL, INTERNAL, CONFIGURATION, CONFIGURATION, PRODUCT, JOB,
              "UInt32", "UInt32", "Int32"), self._list_results),
            (f"{configurations}.GetConfigurationList", ("UInt32", "UInt32", "Int32"), self._list_configurations),
            (f"{configurations}.GetConfigurationById", (CONFIGURATION, "Int32"), self._configuration),
            (f"{configurations}.ActivateConfiguration", (CONFIGURATION,), self._activate),
        )  # fmt: skip
        for path, kinds, function in offered:
            self._link(self._space.id(path), checked(kinds, function))
        # Conditions stand in no folder: their methods are those of the type, called on the condition's id.
        of_conditions: tuple[tuple[str, tuple[str, ...], Function], ...] = (
            ("AcknowledgeableConditionType_Acknowledge", ("ByteString", "LocalizedText"), self._acknowledge),
            ("AcknowledgeableConditionType_Confirm", ("ByteString", "LocalizedText"), self._confirm),
            ("ConditionType_ConditionRefresh", ("UInt32",), self._refresh),
            ("ConditionType_ConditionRefresh2", ("UInt32", "UInt32"), self._refresh),
        )
        for name, kinds, function in of_conditions:
            self._link(ua.NodeId(getattr(ua.ObjectIds, name)), checked(kinds, function))
        self._machine.link_recipe = self.link_recipe

    def link_recipe(self, recipe_id: str) -> None:
        """Gives the methods of a recipe's own node their functions."""

        async def prepare() -> list[ua.Variant]:
            completed, error = await self._machine.prepare(self._machine.find_recipe((recipe_id, None)))
            return [_boolean(completed and not error), _int(error)]

        async def unprepare() -> list[ua.Variant]:
            await self._machine.unprepare(self._machine.find_recipe((recipe_id, None)))
            return [OKAY]

        self._link(self._space.id(f"{RECIPES}.{recipe_id}.Prepare"), checked((), prepare))
        self._link(self._space.id(f"{RECIPES}.{recipe_id}.Unprepare"), checked((), unprepare))

    def _link(self, node: ua.NodeId, callback: Callback) -> None:
        self._server.link_method(self._server.get_node(node), callback)

    # The state machine.

    async def _select_mode_automatic(self) -> list[ua.Variant]:
        await self._machine.select_mode_automatic()
        return [OKAY]

    async def _halt(self, cause: int, why: str) -> list[ua.Variant]:
        await self._machine.halt(_reason(cause, why))
        return [OKAY]

    async def _reset(self, cause: int, why: str) -> list[ua.Variant]:
        await self._machine.reset(_reason(cause, why))
        return [OKAY]

    async def _stop(self, _cause: int, _why: str) -> list[ua.Variant]:
        await self._machine.stop()
        return [OKAY]

    async def _abort(self, cause: int, why: str) -> list[ua.Variant]:
        await self._machine.abort(_reason(cause, why))
        return [OKAY]

    async def _start_single(
        self, meas: Any, part: Any, recipe: Any, product: Any, parameters: list[ua.Variant]
    ) -> list[ua.Variant]:
        job = await self._machine.start_single(
            meas=meas.Id, part=part.Id, recipe=recipe.Id, product=product.Id, encoder=_encoder(parameters)
        )
        return [ua.Variant(new(JOB, Id=job.id)), OKAY]

    async def _start_continuous(
        self, meas: Any, part: Any, recipe: Any, product: Any, parameters: list[ua.Variant]
    ) -> list[ua.Variant]:
        if part.Id or parameters:
            raise Refused(ua.StatusCodes.BadInvalidArgument)  # parts name themselves while the line runs
        job = await self._machine.start_continuous(meas=meas.Id, recipe=recipe.Id, product=product.Id)
        return [ua.Variant(new(JOB, Id=job.id)), OKAY]

    # Conditions.

    async def _confirm_all(self, comment: ua.LocalizedText) -> list[ua.Variant]:
        await self._conditions.confirm_all(comment.Text or "")
        return []

    async def _acknowledge(self, event_id: bytes, comment: ua.LocalizedText) -> list[ua.Variant]:
        if not await self._conditions.acknowledge(event_id, comment.Text or ""):
            raise Refused(ua.StatusCodes.BadEventIdUnknown)
        return []

    async def _confirm(self, event_id: bytes, comment: ua.LocalizedText) -> list[ua.Variant]:
        if not await self._conditions.confirm(event_id, comment.Text or ""):
            raise Refused(ua.StatusCodes.BadEventIdUnknown)
        return []

    async def _refresh(self, subscription: int, _item: int = 0) -> list[ua.Variant]:
        if not await self._conditions.refresh(subscription):
            raise Refused(ua.StatusCodes.BadSubscriptionIdInvalid)
        return []

    # Recipes and products.

    async def _prepare_recipe(self, external: Any, internal: Any) -> list[ua.Variant]:
        return await self._prepare(self._find(external, internal), "PrepareRecipe")

    async def _unprepare_recipe(self, external: Any, internal: Any) -> list[ua.Variant]:
        recipe = self._find(external, internal)
        await self._machine.unprepare(recipe)
        return [ua.Variant(internal_id(recipe)), OKAY]

    async def _prepare_product(self, product: Any) -> list[ua.Variant]:
        internal, _, error = await self._prepare(self._machine.find_product(product.Id), "PrepareProduct")
        return [internal, error]

    async def _unprepare_product(self, product: Any) -> list[ua.Variant]:
        recipe = self._machine.find_product(product.Id)
        await self._machine.unprepare(recipe, "UnprepareProduct")
        return [ua.Variant(internal_id(recipe)), OKAY]

    async def _prepare(self, recipe: RecipeInfo, method: str) -> list[ua.Variant]:
        completed, error = await self._machine.prepare(recipe, method)
        loaded = self._machine.find_recipe((recipe.id, None))  # its hash may be known only now
        return [ua.Variant(internal_id(loaded)), _boolean(completed and not error), _int(error)]

    def _find(self, external: Any, internal: Any) -> RecipeInfo:
        return self._machine.find_recipe((external.Id, external.Hash), (internal.Id, internal.Hash))

    async def _list_recipes(
        self, external: Any, product: Any, prepared: int, most: int, start: int, _timeout: int
    ) -> list[ua.Variant]:
        if prepared not in (0, 1, 2):  # TriStateBooleanDataType: no, yes, either
            raise Refused(ua.StatusCodes.BadInvalidArgument)
        found = [
            internal_id(recipe)
            for recipe in self._machine.control.recipes()
            if external.Id in ("", recipe.id)
            and product.Id in ("", recipe.product)
            and prepared in (2, int(self._machine.is_prepared(recipe)))
        ]
        return _page(found, most, start)

    # Results.

    async def _result(self, result_id: Any, _timeout: int) -> list[ua.Variant]:
        return [NO_HANDLE, ua.Variant(self._kept(result_id.Id)), OKAY]

    async def _result_components(self, result_id: Any, _timeout: int) -> list[ua.Variant]:
        result = self._kept(result_id.Id)
        structure = ua.VariantType.ExtensionObject
        structures = [
            ua.Variant(getattr(result, name), structure)
            for name in ("MeasId", "PartId", "ExternalRecipeId", "InternalRecipeId", "ProductId",
                         "ExternalConfigurationId", "InternalConfigurationId", "JobId")
        ]  # fmt: skip
        return [
            _boolean(False),
            NO_HANDLE,
            _boolean(False),
            _boolean(False),
            _int(result.ResultState),
            *structures,
            ua.Variant(result.CreationTime, ua.VariantType.DateTime),
            ua.Variant(result.ProcessingTimes, structure),
            ua.Variant(result.ResultContent, ua.VariantType.Variant),
            OKAY,
        ]

    async def _list_results(
        self, state: int, meas: Any, part: Any, external: Any, internal: Any, external_configuration: Any,
        configuration: Any, product: Any, job: Any, most: int, start: int, _timeout: int,
    ) -> list[ua.Variant]:  # fmt: skip
        found = self._machine.results.matching(
            state,
            MeasId=meas.Id,
            PartId=part.Id,
            ExternalRecipeId=external.Id,
            InternalRecipeId=internal.Id,
            ExternalConfigurationId=external_configuration.Id,
            InternalConfigurationId=configuration.Id,
            ProductId=product.Id,
            JobId=job.Id,
        )
        return _page(list(found), most, start)

    def _kept(self, result_id: str) -> Any:
        result = self._machine.results.get(result_id)
        if result is None:
            raise Refused(ua.StatusCodes.BadNotFound)
        return result

    # Configurations.

    async def _list_configurations(self, most: int, start: int, _timeout: int) -> list[ua.Variant]:
        return _page(list(reversed(self._machine.configurations.values())), most, start)

    async def _configuration(self, configuration: Any, _timeout: int) -> list[ua.Variant]:
        known = self._machine.configurations.get(configuration.Id)
        if known is None:
            raise Refused(ua.StatusCodes.BadNotFound)
        return [NO_HANDLE, ua.Variant(known), OKAY]

    async def _activate(self, configuration: Any) -> list[ua.Variant]:
        active = next(reversed(self._machine.configurations))
        if configuration.Id not in self._machine.configurations:
            raise Refused(ua.StatusCodes.BadInvalidArgument)
        if configuration.Id != active:
            raise Refused(ua.StatusCodes.BadNotSupported)  # it follows from the software and the recipe's models
        return [OKAY]


def checked(kinds: tuple[str, ...], function: Function) -> Callback:
    """A function for asyncua, which gets the object's id and variants, around one that gets checked values."""

    async def called(_parent: ua.NodeId, *arguments: ua.Variant) -> Any:
        if len(arguments) != len(kinds):
            missing = len(arguments) < len(kinds)
            bad = ua.StatusCodes.BadArgumentsMissing if missing else ua.StatusCodes.BadTooManyArguments
            return ua.StatusCode(bad)
        values, verdicts = [], []
        for kind, argument in zip(kinds, arguments, strict=True):
            good, value = _value(kind, argument)
            values.append(value)
            verdicts.append(ua.StatusCode(ua.StatusCodes.Good if good else ua.StatusCodes.BadTypeMismatch))
        if not all(verdict.is_good() for verdict in verdicts):
            answer = ua.CallMethodResult()
            answer.StatusCode = ua.StatusCode(ua.StatusCodes.BadInvalidArgument)
            answer.InputArgumentResults = verdicts
            return answer
        try:
            return await function(*values)
        except Refused as refused:
            return ua.StatusCode(refused.status)
        except NotReady:
            return ua.StatusCode(ua.StatusCodes.BadInvalidState)
        except ConfigInvalid:
            return ua.StatusCode(ua.StatusCodes.BadInvalidArgument)

    return called


def _value(kind: str, argument: ua.Variant) -> tuple[bool, Any]:
    """Whether the argument is of its kind, and its value; a null where a text or an id is expected is an empty one."""
    value = argument.Value
    if kind == "Parameters":
        return value is None or isinstance(value, list), value or []
    if kind in BUILT_IN:
        if value is None:
            return kind in NULL, NULL.get(kind)
        return argument.VariantType == BUILT_IN[kind] and not isinstance(value, list), value
    if value is None:
        return True, new(kind)
    if type(value).__name__ != kind:  # by name: the classes are made anew by every client in the same process
        return False, None
    if value.Id is None:
        value.Id = ""
    return True, value


def _reason(cause: int, why: str) -> str:
    """What a client gave as the reason, for the event that tells of the change."""
    return f"{why} ({cause})" if why else f"cause {cause}"


def _encoder(parameters: list[ua.Variant]) -> int | None:
    """The one parameter that a job may have: the count of the belt's encoder. Raises Refused."""
    if not parameters:
        return None
    value = parameters[0].Value if isinstance(parameters[0], ua.Variant) else parameters[0]
    if len(parameters) > 1 or not isinstance(value, int) or isinstance(value, bool):
        raise Refused(ua.StatusCodes.BadInvalidArgument)
    return value


def _page(found: list[Any], most: int, start: int) -> list[ua.Variant]:
    """IsComplete, ResultCount, handle, list, error: the part of a list that was asked for; `most` 0: all it may be."""
    part = found[start : start + min(most or MOST, MOST)]
    return [
        _boolean(start + len(part) >= len(found)),
        ua.Variant(len(part), ua.VariantType.UInt32),
        NO_HANDLE,
        ua.Variant(part, ua.VariantType.ExtensionObject, is_array=True),
        OKAY,
    ]


def _boolean(value: bool) -> ua.Variant:
    return ua.Variant(value, ua.VariantType.Boolean)


def _int(value: int) -> ua.Variant:
    return ua.Variant(value, ua.VariantType.Int32)
