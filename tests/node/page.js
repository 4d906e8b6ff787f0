/**
 * Shows app.js in a page of its own origin, in jsdom or in a browser. What it is told on standard
 * input, one JSON object per line: {"do": "click", "id": of a button}. It writes {"shown": {...}} to
 * standard output, what the page shows, whenever that changes. It ends with its input.
 *
 * Its argument is a JSON object: "browser" (the path of a Chromium; without one, jsdom), "device",
 * "key" and "endpoint" of the gateway, and "backend": whether the app asks the page's backend for
 * grants, instead of having the key.
 */
'use strict';
const http = require('http');
const path = require('path');
const readline = require('readline');
const esbuild = require('esbuild');

const { browser, device, key, endpoint, backend } = JSON.parse(process.argv[2]);
const site = backend
    ? { device, url: endpoint }
    : { device, connectionString: `Endpoint=${endpoint};SharedAccessKey=${key}` };
const PAGE = `<!doctype html><link rel="icon" href="data:,"><div id="root"></div>
<script>window.site = ${JSON.stringify(site)};</script><script src="/app.js"></script>`;
const QUIET = [
    '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
    '--disable-background-networking', '--disable-component-update', '--disable-sync',
];

function show(text) {
    process.stdout.write(JSON.stringify({ shown: JSON.parse(text) }) + '\n');
}

/** The app, as a script for browsers. */
function bundle() {
    const built = esbuild.buildSync({
        entryPoints: [path.join(__dirname, 'app.js')],
        bundle: true,
        write: false,
        define: { 'process.env.NODE_ENV': '"production"' },
        nodePaths: [process.env.NODE_PATH],
    });
    return built.outputFiles[0].text;
}

/** What the page comes from; it grants whatever its app asks for. */
function serve(script) {
    const contents = { '/': ['text/html', PAGE], '/app.js': ['text/javascript', script] };
    const server = http.createServer(async (request, response) => {
        if (request.method === 'PUT' && request.url === '/grants') {
            const chunks = [];
            for await (const chunk of request) {
                chunks.push(chunk);
            }
            const headers = { 'Content-Type': 'application/json', 'Shared-Access-Key': key };
            const body = Buffer.concat(chunks);
            const answer = await fetch(`${endpoint}/grants`, { method: 'PUT', headers, body });
            response.writeHead(answer.status).end();
        } else {
            const [type, content] = contents[request.url];
            response.writeHead(200, { 'Content-Type': type }).end(content);
        }
    });
    return new Promise((resolve) => {
        server.listen(0, '127.0.0.1', () => resolve(`http://127.0.0.1:${server.address().port}/`));
    });
}

async function openInJsdom(url) {
    const { JSDOM, VirtualConsole } = require('jsdom');
    const dom = await JSDOM.fromURL(url, {
        runScripts: 'dangerously',
        resources: 'usable',
        virtualConsole: new VirtualConsole().sendTo(new console.Console(process.stderr)),
        beforeParse(window) { window.shown = show; },
    });
    return {
        click: (id) => dom.window.document.getElementById(id).click(),
        close: () => {},
    };
}

async function openInChromium(url) {
    const { chromium } = require('playwright-core');
    const running = await chromium.launch({ executablePath: browser, args: QUIET });
    const page = await running.newPage();
    await page.exposeFunction('shown', show);
    page.on('pageerror', (error) => process.stderr.write(`${error}\n`));
    await page.goto(url);
    return { click: (id) => page.click(`#${id}`), close: () => running.close() };
}

// What nobody catches ends no page: a browser notes it on its console.
process.on('unhandledRejection', (error) => process.stderr.write(`${error}\n`));

async function main() {
    const url = await serve(bundle());
    const page = await (browser ? openInChromium(url) : openInJsdom(url));
    const input = readline.createInterface({ input: process.stdin });
    input.on('line', (line) => page.click(JSON.parse(line).id));
    input.on('close', async () => {
        await page.close();
        process.exit(0);
    });
}

main().catch((error) => {
    process.stderr.write(`${error.stack}\n`);
    process.exit(1);
});
