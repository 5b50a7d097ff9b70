// Just enough of a browser to run the web chat: prints what the page shows, submits forms it is told to.
import { createInterface } from 'node:readline';
import { WebSocket } from 'undici';

const print = event => process.stdout.write(JSON.stringify(event) + '\n');
const stored = new Map(process.env.TOKEN ? [[process.env.TOKEN_KEY, process.env.TOKEN]] : []);
const elements = {};

function element(id) {
  const field = { value: '' };
  let text = '';
  const self = {
    id,
    elements: { text: field },
    lastChild: null,
    get textContent() { return text; },
    set textContent(value) { text = value; if (id) print({ event: id, text: value }); },
    replaceChildren: (...items) => print({ event: id, items: items.map(item => item.textContent) }),
    addEventListener: (_kind, listener) => { self.submit = listener; },
    field,
  };
  return self;
}

Object.assign(globalThis, {
  WebSocket,
  location: { search: process.env.SEARCH },
  localStorage: {
    getItem: key => stored.get(key) ?? null,
    setItem: (key, value) => { stored.set(key, value); print({ event: 'stored', key, value }); },
  },
  document: {
    getElementById: id => (elements[id] ??= element(id)),
    createElement: () => element(''),
  },
});

print({ event: 'ready' });
await import('./dist/chat.js');
for await (const line of createInterface({ input: process.stdin })) {
  const { form, text } = JSON.parse(line);
  elements[form].field.value = text;
  elements[form].submit({ preventDefault() {} });
}
process.exit(0);
