// A relay of TCP or UDP: node relay.js tcp|udp DEVICE_PORT PORT,PORT,... [KEY IV]
// With a key and an initialization vector, both in hex, the clients' side is AES-256-CTR.
const net = require('net'), dgram = require('dgram'), crypto = require('crypto');
const [protocol, device, ports, key, iv] = process.argv.slice(2);
const host = '127.0.0.1';

function secret(make) {
  return make('aes-256-ctr', Buffer.from(key, 'hex'), Buffer.from(iv, 'hex'));
}

function relayConnection(client) {
  const server = net.connect(Number(device), host);
  for (const each of [client, server]) {
    each.setNoDelay(true);
    each.on('error', () => { client.destroy(); server.destroy(); });
    each.on('close', () => { client.destroy(); server.destroy(); });
  }
  if (key) {
    client.pipe(secret(crypto.createDecipheriv)).pipe(server);
    server.pipe(secret(crypto.createCipheriv)).pipe(client);
  } else {
    client.pipe(server);
    server.pipe(client);
  }
}

function relayDatagrams(port) {
  const front = dgram.createSocket('udp4'), back = dgram.createSocket('udp4');
  let owner = null;
  front.on('message', (data, from) => { owner = owner || from; back.send(data); });
  back.on('message', (data) => { if (owner) front.send(data, owner.port, owner.address); });
  for (const each of [front, back]) each.on('error', () => {});
  back.connect(Number(device), host, () => {
    back.setRecvBufferSize(4 << 20);
    front.bind(port, host, () => front.setRecvBufferSize(4 << 20));
  });
}

for (const port of ports.split(',').map(Number)) {
  if (protocol === 'udp') relayDatagrams(port);
  else net.createServer(relayConnection).listen(port, host, 1024);
}
