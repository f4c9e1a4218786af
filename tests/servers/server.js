// Node's http2 as tests/servers starts it: no packages, told what to do by the variable SETTINGS.
//
// GET /small and /big; POST /upload/{i} compares with upload i; POST /count/{id} counts in a log; GET /hold/{n} answers
// when n such requests are here at the same time. SIGTERM shuts down: GOAWAY, then what runs may finish.
'use strict';

const fs = require('node:fs');
const http2 = require('node:http2');
const https = require('node:https');

const settings = JSON.parse(process.env.SETTINGS);
const pattern = fs.readFileSync(settings.pattern);
const big = 1 << 20;
const holding = [];

function answer(request, response) {
  const [, kind, rest] = request.url.split('?')[0].split('/');
  switch (kind) {
    case 'small': return response.end('a small file\n');
    case 'big':
      // As frameworks do: without it, a client cannot tell Node's RST_STREAM after the last byte from a body cut short.
      response.setHeader('content-length', big);
      return response.end(pattern.subarray(0, big));
    case 'upload': return upload(request, response, Number(rest));
    case 'count':
      fs.appendFileSync(settings.count, `${rest}\n`);
      return response.end(rest);
    case 'hold': return hold(response, Number(rest));
    default:
      response.statusCode = 404;
      return response.end();
  }
}

function upload(request, response, start) {
  const chunks = [];
  request.on('data', (chunk) => chunks.push(chunk));
  request.on('end', () => {
    const body = Buffer.concat(chunks);
    const identical = body.equals(pattern.subarray(start, start + big));
    response.statusCode = identical ? 200 : 400;
    response.end(identical ? 'identical' : `${body.length} bytes`);
  });
}

function hold(response, wanted) {
  holding.push(response);
  if (holding.length >= wanted) holding.splice(0).forEach((held) => held.end('held'));
}

// Beyond this many MB in a session, streams are reset with ENHANCE_YOUR_CALM.
const maxSessionMemory = 1000;
const tls = { cert: fs.readFileSync(settings.cert), key: fs.readFileSync(settings.key), minVersion: 'TLSv1.2' };
const sessions = new Set();

function http2Server() {
  if (settings.streams) tls.settings = { maxConcurrentStreams: settings.streams };
  const server = http2.createSecureServer({ ...tls, maxSessionMemory, allowHTTP1: true }, answer);
  const last = settings.keepAliveOff ? 1 : settings.goawayAfter;
  server.on('session', (session) => {
    sessions.add(session);
    session.on('close', () => sessions.delete(session));
    session.setTimeout(settings.idle, () => session.close());
    let count = 0;
    session.on('stream', () => {
      count += 1;
      // After the event, so that the streams of the same read are covered.
      if (count === last) setImmediate(() => session.close());
    });
  });
  return server;
}

function http1Server() {
  const server = https.createServer({ ...tls, keepAliveTimeout: settings.idle }, answer);
  if (settings.keepAliveOff) server.maxRequestsPerSocket = 1;
  return server;
}

const server = settings.h1Only ? http1Server() : http2Server();
server.listen({ host: '127.0.0.1', port: settings.port, backlog: 4096 });

process.on('SIGTERM', () => {
  server.close();
  if (server.closeIdleConnections) server.closeIdleConnections();
  sessions.forEach((session) => session.close());
});
