// Socket.IO with one room, on a port that it tells: node socketio.js
// Who sends notifications speaks a plain WebSocket at /websocket, as DeviceHive's devices do: each
// is passed on to the room as one object, and answered.
const http = require('http');
const { Server } = require('socket.io');
const { WebSocketServer } = require('ws');

const server = http.createServer();
const io = new Server(server, { serveClient: false, transports: ['websocket'] });
const devices = new WebSocketServer({ noServer: true });

io.on('connection', (socket) => { socket.join('room'); });

function passOn(device, text) {
  const { action, requestId, deviceId, notification } = JSON.parse(text);
  io.to('room').emit('data', {
    deviceId, telemetry: notification.parameters, timestamp: new Date().toISOString(),
  });
  device.send(JSON.stringify({ action, requestId, status: 'success' }));
}

server.on('upgrade', (request, socket, head) => {
  if (request.url === '/websocket') {
    devices.handleUpgrade(request, socket, head, (device) => {
      device.on('message', (text) => passOn(device, text));
    });
  }
});
server.listen(0, '127.0.0.1', 1024, () => console.log(server.address().port));
