/**
 * Apps made of socket.io-client and fetch, as ux4iot-react is, in both dialects of ux4iot. They do
 * what a test says, one JSON object per line of standard input, and write what happens to standard
 * output, one object per line. The program ends with its input.
 *
 *   {"do": "start", "app": name, "dialect": 2 or 3, "endpoint": URL, "key": key, "wants": [...],
 *    "transports": null for socket.io-client's own, or a list, "quick": factor}
 *   {"do": "leave", "app": name}     the engine is closed, as when a page is frozen
 *
 * "wants" are grants without a session and type: {"kind": "telemetry", "deviceId": id, ...}. All that
 * takes time with ux4iot-react takes less here, by the factor.
 *
 * What it writes has the app's name in "app", and one of: "session" (a new one's id), "opened" (the
 * transport), "upgraded" (to which), "connected" (the session), "refused" (why), "disconnected" (the
 * reason), "granted" (what), "last" (what the device said last, in dialect 3), "subscribed" (what) and
 * "heard" (a message that the app takes). "of" is the session whose socket it was.
 */
'use strict';
const readline = require('readline');
const { io } = require('socket.io-client');

/** ms, as ux4iot-react and socket.io-client have them. */
const RETRY = 5000;
const RECONNECTION = 1000;
const RECONNECTION_MAX = 5000;

const GRANT_TYPES = {
    telemetry: 'subscribeToTelemetry',
    connectionState: 'subscribeToConnectionState',
    deviceTwin: 'subscribeToDeviceTwin',
    d2cMessages: 'subscribeToD2CMessages',
};
const MEMBERS = {
    telemetry: 'telemetry',
    connectionState: 'connectionState',
    deviceTwin: 'deviceTwin',
    d2cMessages: 'message',
};

class App {
    constructor({ app, endpoint, key, wants, transports, quick }) {
        Object.assign(this, { app, endpoint, key, wants, transports, quick });
    }

    write(happened) {
        process.stdout.write(JSON.stringify({ app: this.app, ...happened }) + '\n');
    }

    async ask(method, path, body, headers) {
        const response = await fetch(this.endpoint + path, {
            method,
            headers: { 'Content-Type': 'application/json', 'Shared-Access-Key': this.key, ...headers },
            body: body && JSON.stringify(body),
        });
        if (!response.ok) {
            throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`);
        }
        return response.status === 204 ? null : response.json();
    }

    /** A session, and a socket for it. */
    async begin() {
        const { sessionId } = await this.ask('POST', '/session');
        this.sessionId = sessionId;
        this.write({ session: sessionId });
        const socket = io(`${this.endpoint}?sessionId=${sessionId}`, {
            ...(this.transports && { transports: this.transports }),
            reconnectionDelay: RECONNECTION / this.quick,
            reconnectionDelayMax: RECONNECTION_MAX / this.quick,
        });
        this.socket = socket;
        socket.io.on('open', () => {
            const { engine } = socket.io;
            this.write({ opened: engine.transport.name, of: sessionId });
            engine.once('upgrade', ({ name }) => this.write({ upgraded: name }));
        });
        socket.on('connect', () => {
            this.write({ connected: sessionId });
            this.onConnect();
        });
        socket.on('connect_error', (error) => {
            this.write({ refused: error.message, of: sessionId });
            this.onRefused();
        });
        socket.on('disconnect', (reason) => {
            this.write({ disconnected: reason });
            this.onDisconnect(reason);
        });
        socket.on('data', (message) => this.onData(message));
    }

    /** Begin anew in a while, unless that is put off again. */
    beginLater() {
        clearTimeout(this.timer);
        this.timer = setTimeout(() => this.begin().catch(() => this.beginLater()), RETRY / this.quick);
    }

    leave() {
        this.socket.io.engine.close();
    }
}

/** What 2.0.2 does: grants subscribe, and hold as long as socket.io-client comes back by itself. */
class Dialect2 extends App {
    async start() {
        await this.begin();
        await this.grantAll();
    }

    grantAll() {
        return Promise.all(this.wants.map(async ({ kind, ...about }) => {
            const grant = { grantType: GRANT_TYPES[kind], ...about, sessionId: this.sessionId };
            await this.ask('PUT', '/grants', grant);
            this.write({ granted: kind });
        }));
    }

    onConnect() {
        if (this.isLost) {
            this.isLost = false;
            this.grantAll();
        }
    }

    onRefused() {}

    onDisconnect(reason) {
        if (reason === 'io server disconnect') {
            this.isLost = true;
            this.beginLater();
        }
    }

    onData(message) {
        this.write({ heard: message });
    }
}

/**
 * What 3.x and 4.x do: on every connection they forget what they listen to, and subscribe to it only
 * if the session is another than before; after a disconnection or a refusal they begin a new session,
 * unless they are connected by then.
 */
class Dialect3 extends App {
    async start() {
        this.listening = new Set();
        await this.begin();
    }

    onConnect() {
        clearTimeout(this.timer);
        this.listening.clear();
        if (this.subscribedFor !== this.sessionId) {
            this.subscribedFor = this.sessionId;
            this.wants.forEach((each) => this.subscribe(each));
        }
    }

    async subscribe({ kind, ...about }) {
        const wanted = { type: kind, ...about, sessionId: this.sessionId };
        await this.ask('PUT', '/grants', wanted);
        this.write({ granted: kind });
        const path = {
            telemetry: `/lastValue/${about.deviceId}`,
            connectionState: `/connectionState/${about.deviceId}`,
            deviceTwin: `/deviceTwin/${about.deviceId}`,
        }[kind];
        if (path) {
            const last = await this.ask('GET', path, null, { sessionId: this.sessionId });
            this.write({ last, kind });
        }
        await this.ask('PUT', '/subscription', wanted);
        this.listening.add(MEMBERS[kind]);
        this.write({ subscribed: kind });
    }

    onRefused() {
        this.beginLater();
    }

    onDisconnect() {
        this.beginLater();
    }

    onData(message) {
        if (Object.keys(message).some((member) => this.listening.has(member))) {
            this.write({ heard: message });
        }
    }
}

const apps = {};
const actions = {
    start(options) {
        const app = new { 2: Dialect2, 3: Dialect3 }[options.dialect](options);
        apps[options.app] = app;
        app.start();
    },
    leave({ app }) {
        apps[app].leave();
    },
};

const input = readline.createInterface({ input: process.stdin });
input.on('line', (line) => {
    const command = JSON.parse(line);
    actions[command.do](command);
});
input.on('close', () => process.exit(0));
