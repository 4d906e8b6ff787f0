/**
 * Opens sockets with WebSocket-Node as a test says, one JSON object per line of standard input, and
 * writes what happens to them to standard output, one object per line. It ends with its input.
 *
 *   {"do": "open", "socket": name, "port": port, "protocols": [...], "path": "/", "from": address}
 *   {"do": "send", "socket": name, "text": text}
 *   {"do": "binary", "socket": name, "text": text}
 *   {"do": "close", "socket": name}      by a closing handshake
 *   {"do": "drop", "socket": name}       cut
 *   {"do": "get", "socket": name, "port": port, "path": "/"}  plain HTTP
 *
 * What it writes has the socket's name in "socket", and one of: "opened" (the protocol), "failed"
 * (why there was no socket), "message" (its text), "pinged", "closed" ([code, reason]), "answered"
 * ([status, body, the Connection header]).
 */
'use strict';
const http = require('http');
const readline = require('readline');
const WebSocketClient = require('websocket').client;

const connections = {};

function write(socket, happened) {
    process.stdout.write(JSON.stringify({ socket, ...happened }) + '\n');
}

const actions = {
    open({ socket, port, protocols, path, from }) {
        const client = new WebSocketClient();
        client.on('connectFailed', (error) => write(socket, { failed: error.toString() }));
        client.on('connect', (connection) => {
            connections[socket] = connection;
            connection.on('message', (message) => write(socket, { message: message.utf8Data }));
            connection.on('ping', () => write(socket, { pinged: true }));  // it answers by itself
            connection.on('close', (code, reason) => write(socket, { closed: [code, reason] }));
            connection.on('error', () => {});
            write(socket, { opened: connection.protocol });
        });
        client.connect(`ws://127.0.0.1:${port}${path}`, protocols, null, null, {
            localAddress: from,
        });
    },
    send({ socket, text }) {
        connections[socket].sendUTF(text);
    },
    binary({ socket, text }) {
        connections[socket].sendBytes(Buffer.from(text));
    },
    close({ socket }) {
        connections[socket].close();
    },
    drop({ socket }) {
        connections[socket].drop(1006, 'dropped', true);
    },
    get({ socket, port, path }) {
        http.get({ host: '127.0.0.1', port, path }, (response) => {
            let body = '';
            response.on('data', (data) => { body += data; });
            response.on('end', () => {
                write(socket, { answered: [response.statusCode, body, response.headers.connection] });
            });
        });
    },
};

const input = readline.createInterface({ input: process.stdin });
input.on('line', (line) => {
    const command = JSON.parse(line);
    actions[command.do](command);
});
input.on('close', () => process.exit(0));
