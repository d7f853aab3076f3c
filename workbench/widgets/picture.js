// The page's side of views.Picture: draws `content` (a figure's data and layout) with plotly, which the kernel sends once
// for all pictures of the page, and only when the first one is seen.

const CONFIG = { displaylogo: false, showSendToCloud: false };
const PATIENCE = 30_000; // milliseconds: whoever was asked may be gone

function plotly(model) {
  window.workbenchPlotly ??= new Promise((resolve, reject) => {
    const received = (message, buffers) => {
      if (message !== "plotly") return;
      model.off("msg:custom", received);
      const script = document.createElement("script");
      script.src = URL.createObjectURL(new Blob([buffers[0]], { type: "text/javascript" }));
      script.onload = () => resolve(window.Plotly);
      document.head.append(script);
    };
    model.on("msg:custom", received);
    model.send("plotly");
    setTimeout(reject, PATIENCE);
  }).catch(() => {
    window.workbenchPlotly = undefined;
    return plotly(model);
  });
  return window.workbenchPlotly;
}

function render({ model, el }) {
  const place = el.appendChild(document.createElement("div"));
  let gone = false;
  let last = Promise.resolve();

  const draw = async () => {
    const { data, layout } = structuredClone(model.get("content")); // plotly writes into what it is given
    el.style.display = data ? "" : "none";
    if (!data) return;
    const Plotly = await plotly(model);
    if (!gone) await Plotly.react(place, data, layout, CONFIG);
  };
  const next = () => (last = last.then(draw, draw)); // one after the other

  model.on("change:content", next);
  next();
  return () => {
    gone = true;
    model.off("change:content", next);
    window.Plotly?.purge(place);
  };
}

export default { render };
