/**
 * A device made of the SDK for agents. Its configuration, as the SDK takes it, is the first
 * argument; it does what a test says, one JSON object per line of standard input, and writes what
 * happens to standard output, one object per line. It ends with its input.
 *
 *   {"do": "rest", "call": name, "data": {...}}    a method of the SDK's REST proxy
 *   {"do": "submit", "token": token, "data": {...}}    measurements, through the SDK's Metric
 *   {"do": "api", "part": "control", "call": name, "data": {...}}  a method of its REST API
 *   {"do": "listen", "device": {"device_id": id, "device_token": token}}    its WebSocket
 *
 * What it writes: {"result": what the SDK's callback got, "failed": whether that was an error},
 * {"connected": how often so far, "at": ms}, {"closed": [code, reason], "at": ms}, {"message": text}
 * for each message of the socket, and {"actuation": body} for what the SDK hands to the device.
 */
'use strict';
const readline = require('readline');
const config = JSON.parse(process.argv[2]);
const sdk = require('@open-iot-service-platform/oisp-sdk-js')(config);

const rest = sdk.lib.proxies.getProxyConnector();
const Metric = sdk.lib.data.metric.init();
let connected = 0;

function write(happened) {
    process.stdout.write(JSON.stringify(happened) + '\n');
}

function result(value) {
    // What the gateway refuses is passed on as text.
    const refused = typeof value === 'string' && value.startsWith('{');
    const failed = value instanceof Error || refused || !value;
    write({ result: value instanceof Error ? value.message : value, failed });
}

function watch(connection) {
    connected += 1;
    write({ connected, at: Date.now() });
    connection.on('close', (code, reason) => write({ closed: [code, reason], at: Date.now() }));
    connection.on('message', (message) => write({ message: message.utf8Data }));
}

const actions = {
    rest({ call, data }) {
        // What asks for nothing in particular takes a callback alone.
        const wanted = rest[call].length === 1 ? [result] : [data, result];
        rest[call](...wanted);
    },
    submit({ token, data }) {
        const metric = new Metric();
        metric.set(data);
        metric.deviceToken = token;
        rest.data(metric, result);
    },
    api({ part, call, data }) {
        sdk.api.rest[part][call](data, (error, value) => {
            write({ result: error || value, failed: Boolean(error) });
        });
    },
    listen({ device }) {
        const control = sdk.lib.proxies.getControlConnector('ws');
        control.client.client.on('connect', watch);
        control.updateDeviceInfo(device);
        control.controlCommandListen(
            { deviceId: device.device_id }, (actuation) => write({ actuation }), () => {}
        );
    },
};

const input = readline.createInterface({ input: process.stdin });
input.on('line', (line) => {
    const command = JSON.parse(line);
    actions[command.do](command);
});
input.on('close', () => process.exit(0));
