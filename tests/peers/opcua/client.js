// A second OPC UA client, of another make (node-opcua): prepares a recipe, runs single jobs, prints what it saw as JSON.
// Usage: node client.js URL SECURITY USER PASSWORD FOLDER PARTS
"use strict";
const {
    AttributeIds, constructEventFilter, DataType, MessageSecurityMode, OPCUAClient, SecurityPolicy, TimestampsToReturn,
    UserTokenType, Variant, VariantArrayType, coerceNodeId, makeBrowsePath,
} = require("node-opcua-client");
const { OPCUACertificateManager } = require("node-opcua-certificate-manager");
const path = require("path");

const [url, security, user, password, folder, parts] = process.argv.slice(2);
const URI = "http://opcfoundation.org/UA/MachineVision";
const seen = {};

async function main() {
    const certificates = new OPCUACertificateManager({
        rootFolder: path.join(folder, "pki"), automaticallyAcceptUnknownCertificate: true,
    });
    await certificates.initialize();
    const client = OPCUAClient.create({
        applicationUri: "urn:inspection:node-peer", applicationName: "node-peer", clientCertificateManager: certificates,
        endpointMustExist: false, connectionStrategy: { maxRetry: 2, initialDelay: 200 },
        securityMode: security === "none" ? MessageSecurityMode.None : MessageSecurityMode.SignAndEncrypt,
        securityPolicy: security === "none" ? SecurityPolicy.None : SecurityPolicy.Basic256Sha256,
    });
    await client.connect(url);
    const session = await client.createSession(
        user ? { type: UserTokenType.UserName, userName: user, password } : { type: UserTokenType.Anonymous });
    const index = (await session.readNamespaceArray()).indexOf(URI);
    const system = "ns=1;s=VisionSystem";

    async function find(...names) {
        const found = await session.translateBrowsePath(
            makeBrowsePath(system, names.map((name) => `/${index}:${name}`).join("")));
        if (!found.statusCode.isGood()) throw new Error(`${names}: ${found.statusCode}`);
        return found.targets[0].targetId;
    }
    const machine = await find("VisionStateMachine");
    const automatic = await find("VisionStateMachine", "AutomaticModeStateMachine");
    const recipes = await find("RecipeManagement");
    const results = await find("ResultManagement");

    async function make(name, id) {
        const types = {
            MeasIdDataType: 3015, PartIdDataType: 3004, RecipeIdExternalDataType: 3002, RecipeIdInternalDataType: 3013,
            ProductIdDataType: 3003,
        };
        const value = await session.constructExtensionObject(coerceNodeId(`ns=${index};i=${types[name]}`), { id });
        return new Variant({ dataType: DataType.ExtensionObject, value });
    }
    async function call(objectId, name, inputArguments) {
        const names = objectId === machine ? ["VisionStateMachine"]
            : objectId === automatic ? ["VisionStateMachine", "AutomaticModeStateMachine"]
            : objectId === recipes ? ["RecipeManagement"] : ["ResultManagement"];
        return session.call({ objectId, methodId: await find(...names, name), inputArguments });
    }
    async function state() {
        const found = await session.translateBrowsePath(makeBrowsePath(automatic, "/0:CurrentState"));
        const data = await session.read({ nodeId: found.targets[0].targetId, attributeId: AttributeIds.Value });
        return data.value.value ? data.value.value.text : null;
    }

    // A method in the wrong state first.
    const start = async (part) => call(automatic, "StartSingleJob", [
        await make("MeasIdDataType", "lot 9"), await make("PartIdDataType", part),
        await make("RecipeIdExternalDataType", "nut"), await make("ProductIdDataType", ""),
        new Variant({ dataType: DataType.Variant, arrayType: VariantArrayType.Array, value: [] }),
    ]);
    seen.early = (await start("early")).statusCode.name;

    const subscription = await session.createSubscription2({
        requestedPublishingInterval: 10, requestedLifetimeCount: 1000, requestedMaxKeepAliveCount: 20,
        maxNotificationsPerPublish: 0, publishingEnabled: true, priority: 1,
    });
    const fields = ["EventType", "Message", "ResultId", "PartId", "JobId", "ResultState", "InternalRecipeId",
        "ResultContent"].map((name) => (["EventType", "Message"].includes(name) ? name : `${index}:${name}`));
    const filter = constructEventFilter(fields);
    const item = await subscription.monitor(
        { nodeId: system, attributeId: AttributeIds.EventNotifier }, { queueSize: 1000, filter }, TimestampsToReturn.Both);
    const arrived = [];
    item.on("changed", (values) => {
        if (values[0].value.toString() === `ns=${index};i=1024`) arrived.push(values);
    });

    const selected = await call(machine, "SelectModeAutomatic", []);
    seen.selected = [selected.statusCode.name, selected.outputArguments[0].value, await state()];
    const prepared = await call(recipes, "PrepareRecipe",
        [await make("RecipeIdExternalDataType", "nut"), await make("RecipeIdInternalDataType", "")]);
    seen.prepared = [prepared.statusCode.name, prepared.outputArguments[0].value.id,
        prepared.outputArguments[0].value.hash.toString("hex"), prepared.outputArguments[1].value];

    seen.jobs = [];
    for (const part of parts.split(",")) {
        const started = await start(part);
        const end = Date.now() + 20000;
        while (!arrived.some((values) => values[3].value && values[3].value.id === part)) {
            if (Date.now() > end) throw new Error(`no event for ${part}`);
            await new Promise((done) => setTimeout(done, 2));
        }
        const event = arrived.find((values) => values[3].value.id === part);
        const asked = await session.call({
            objectId: results, methodId: await find("ResultManagement", "GetResultById"),
            inputArguments: [
                new Variant({ dataType: DataType.ExtensionObject, value: event[2].value }),
                new Variant({ dataType: DataType.Int32, value: 1000 }),
            ],
        });
        const result = asked.outputArguments[1].value;
        seen.jobs.push({
            job: started.outputArguments[0].value.id === event[4].value.id, state: event[5].value,
            recipe: event[6].value.id, verdict: event[7].value[1].value, score: event[7].value[2].value,
            document: JSON.parse(event[7].value[0].value),
            asked: [asked.statusCode.name, result.partId.id, result.resultContent[1].value],
        });
        while ((await state()) !== "Ready") {
            if (Date.now() > end) throw new Error("never Ready");
        }
    }
    await subscription.terminate();
    await session.close();
    await client.disconnect();
}

main().then(() => {
    process.stdout.write(JSON.stringify(seen), () => process.exit(0));
}, (error) => {
    process.stderr.write(`${error.stack}\n${JSON.stringify(seen)}\n`, () => process.exit(1));
});
