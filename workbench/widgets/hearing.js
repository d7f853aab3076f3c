// Stands before each module of ours (hearing.py): what a widget needs to hear the kernel on a busy machine.
//
// anywidget gives a module two seconds to load. One that takes longer is drawn all the same, but its model refuses
// every message of the kernel from then on. So whoever is loaded, early or late, takes the kernel's messages up itself,
// as ipywidgets does, and says so: the kernel then sends again what has changed meanwhile.

const PATIENCE = 30_000; // milliseconds until the kernel is asked again: whoever was asked may be gone
const SOON = 3_000; // milliseconds of waiting that need no words

function initialize({ model }) {
  let real; // what anywidget gives is only a view of it
  const caught = (changed) => (real = changed);
  model.on("change:heard", caught);
  model.set("heard", model.get("heard") + 1);
  model.off("change:heard", caught);
  let handle;
  for (let kind = real; kind; kind = Object.getPrototypeOf(kind)) {
    if (Object.hasOwn(kind, "_handle_comm_msg")) handle = kind._handle_comm_msg; // the last one is that of ipywidgets
  }
  real?.comm?.on_msg((message) => handle.call(real, message));
  model.save_changes();
}

// What the kernel sends once for all widgets of a page, when it is first needed, unless the first of them has brought it:
// `load(url)` makes something of its text. Until it is there, `el` says what is waited for.
function library(name, model, el, load) {
  const known = (window.workbenchLibraries ??= {});
  const made = (text) => load(URL.createObjectURL(new Blob([text], { type: "text/javascript" })));
  const brought = model.get("brought");
  const ask = () =>
    new Promise((resolve, reject) => {
      if (brought?.byteLength) return made(brought).then(resolve, reject);
      const received = (message, buffers) => {
        if (message?.library !== name) return;
        model.off("msg:custom", received);
        made(buffers[0]).then(resolve, reject);
      };
      model.on("msg:custom", received);
      model.send({ type: "library" });
      setTimeout(reject, PATIENCE, new Error("the kernel does not answer"));
    });
  known[name] ??= ask().catch((error) => {
    delete known[name];
    throw error;
  });
  const words = document.createElement("div");
  words.className = "wb-waiting";
  const say = (text) => {
    words.textContent = text;
    el.prepend(words);
  };
  const timer = setTimeout(say, SOON, `Waiting for the kernel, which may be busy, to send ${name} …`);
  const done = () => (clearTimeout(timer), words.remove());
  return known[name].then(
    (found) => (done(), found),
    (error) => {
      clearTimeout(timer);
      say(`${name} has not come (${error?.message ?? "it cannot be loaded"}); it is asked for again …`);
      return new Promise((resolve) => setTimeout(resolve, 1000)).then(() => {
        words.remove();
        if (!el.isConnected && el.parentElement === null) throw error; // nobody looks any more
        return library(name, model, el, load);
      });
    },
  );
}
