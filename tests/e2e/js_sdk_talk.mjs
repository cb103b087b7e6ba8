// Two people with matrix-js-sdk, the library under most web clients: `node js_sdk_talk.mjs URL`, where it can be imported.
// They talk end-to-end encrypted in its Rust crypto, cross-sign, and one logs in a second time in mid-talk.
// Prints what they saw, as JSON, on the last line.
import * as sdk from "matrix-js-sdk";

const url = process.argv[2];
const password = "correct horse battery";
const silent = { trace() {}, debug() {}, info() {}, warn() {}, error() {}, getChild: () => silent };
console.log = console.info = console.debug = console.warn = console.error = () => {};

async function client(name, register) {
    const door = sdk.createClient({ baseUrl: url, logger: silent });
    const account = register
        ? await door.register(name, password, null, { type: "m.login.dummy" })
        : await door.loginRequest({ type: "m.login.password", identifier: { type: "m.id.user", user: name }, password });
    const made = sdk.createClient({
        baseUrl: url, userId: account.user_id, accessToken: account.access_token, deviceId: account.device_id, logger: silent,
    });
    await made.initRustCrypto({ useIndexedDB: false });
    made.texts = [];
    made.on(sdk.MatrixEventEvent.Decrypted, (event) => {
        if (!event.isDecryptionFailure()) made.texts.push(event.getContent().body);
    });
    const prepared = new Promise((resolve) => made.on("sync", (state) => state === "PREPARED" && resolve()));
    await made.startClient({ initialSyncLimit: 20, lazyLoadMembers: true });
    await prepared;
    return made;
}

async function crossSign(one) {
    const identifier = { type: "m.id.user", user: one.getUserIdLocalpart() };
    await one.getCrypto().bootstrapCrossSigning({
        authUploadDeviceSigningKeys: async (upload) => {
            try {
                await upload(null);
            } catch (refusal) {
                await upload({ type: "m.login.password", identifier, password, session: refusal.data.session });
            }
        },
    });
}

async function until(what, condition) {
    for (let round = 0; round < 400; round++) {
        if (await condition()) return;
        await new Promise((resolve) => setTimeout(resolve, 50));
    }
    throw new Error(`never: ${what}`);
}

const [ann, ben] = [await client("jsann", true), await client("jsben", true)];
await crossSign(ann);
await crossSign(ben);
const encryption = { type: "m.room.encryption", state_key: "", content: { algorithm: "m.megolm.v1.aes-sha2" } };
const invite = { preset: "trusted_private_chat", is_direct: true, invite: [ben.getUserId()], initial_state: [encryption] };
const room = (await ann.createRoom(invite)).room_id;
await until("the invite", () => ben.getRoom(room)?.getMyMembership() === "invite");
await ben.joinRoom(room);
await until("the join", () => ann.getRoom(room)?.getMember(ben.getUserId())?.membership === "join");
await until("the room known as encrypted", () => ann.getCrypto().isEncryptionEnabledInRoom(room));
for (let number = 0; number < 5; number++) await ann.sendTextMessage(room, `secret ${number}`);
await until("five texts", () => ben.texts.length === 5);

const newest = ben.getRoom(room).getLiveTimeline().getEvents().at(-1);
await ben.sendReadReceipt(newest);
await ben.sendTyping(room, true, 3000);
await until("typing", () => ann.getRoom(room).getMember(ben.getUserId()).typing);
await until("the receipt", () => ann.getRoom(room).getEventReadUpTo(ben.getUserId()) === newest.getId());

const phone = await client("jsben", false);
await until("the second device", async () =>
    (await ann.getCrypto().getUserDeviceInfo([ben.getUserId()], true)).get(ben.getUserId()).size === 2);
await ann.sendTextMessage(room, "for both");
await until("both devices read", () => ben.texts.includes("for both") && phone.texts.includes("for both"));
const key = await ann.getCrypto().userHasCrossSigningKeys(ben.getUserId(), true);
await phone.logout(true);
const seen = { texts: ben.texts, phone: phone.texts, crossSigning: key, pushRules: Object.keys(ben.pushRules.global).sort() };
process.stdout.write(JSON.stringify(seen) + "\n", () => process.exit(0));
