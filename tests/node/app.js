/**
 * An app made with ux4iot-react, as it runs in a page: it shows what is known of one device, and has
 * buttons for a direct method and for a desired property. It is bundled by page.js, and told by the
 * page what it is about: window.site has "device", and either "connectionString" or "url".
 */
'use strict';
const { createElement, useState } = require('react');
const { render } = require('react-dom');
const ux4iot = require('ux4iot-react');

/** Have the page's own backend grant something. */
function askBackend(grant) {
    return new Promise((resolve) => {
        const request = new XMLHttpRequest();
        request.open('PUT', '/grants');
        request.setRequestHeader('Content-Type', 'application/json');
        request.onload = () => {
            const { GRANTED, FORBIDDEN } = ux4iot.GRANT_RESPONSES;
            resolve(request.status === 204 ? GRANTED : FORBIDDEN);
        };
        request.onerror = () => resolve(ux4iot.GRANT_RESPONSES.ERROR);
        request.send(JSON.stringify(grant));
    });
}

function Device({ id }) {
    const [refused, onGrantError] = useState();
    const [answer, setAnswer] = useState();
    const temperature = ux4iot.useTelemetry(id, 'temperature', { onGrantError });
    const { telemetry } = ux4iot.useMultiTelemetry({
        initialSubscribers: { [id]: ['humidity', 'place'] },
    });
    const connected = ux4iot.useConnectionState(id);
    const twin = ux4iot.useDeviceTwin(id);
    const message = ux4iot.useD2CMessages(id);
    const restart = ux4iot.useDirectMethod(id, 'restart');
    const patch = ux4iot.usePatchDesiredProperties(id);

    const shown = { temperature, several: telemetry[id], connected, twin, message, answer, refused };
    const finish = (result) => result.then(setAnswer, (error) => setAnswer(error.response.data));
    const actions = {
        restart: () => finish(restart({ after: 5 })),
        patch: () => finish(patch({ interval: 5 })),
    };
    return [
        ...Object.entries(shown).map(([name, value]) => createElement(
            'output', { key: name, id: name }, JSON.stringify(value)
        )),
        ...Object.entries(actions).map(([name, onClick]) => createElement(
            'button', { key: name, id: name, onClick }, name
        )),
    ];
}

const { device, connectionString, url } = window.site;
const options = connectionString
    ? { adminConnectionString: connectionString }
    : { ux4iotURL: url, grantRequestFunction: askBackend };
const root = document.getElementById('root');

function tell() {
    const outputs = [...root.querySelectorAll('output')].filter((each) => each.textContent);
    window.shown(JSON.stringify(Object.fromEntries(
        outputs.map((each) => [each.id, JSON.parse(each.textContent)])
    )));
}

new MutationObserver(tell).observe(root, { childList: true, characterData: true, subtree: true });
render(
    createElement(ux4iot.Ux4iotContextProvider, { options }, createElement(Device, { id: device })),
    root
);
