// The page's side of views.Picture: draws `content` (a figure's data and layout) with plotly, which the kernel sends once
// for all pictures of the page, and only when the first one is seen.

const CONFIG = { displaylogo: false, showSendToCloud: false };

const load = (url) =>
  new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = url;
    script.onload = () => resolve(window.Plotly);
    script.onerror = () => reject(new Error("it cannot be loaded"));
    document.head.append(script);
  });

function render({ model, el }) {
  const place = el.appendChild(document.createElement("div"));
  let gone = false;
  let last = Promise.resolve();

  const draw = async () => {
    const { data, layout } = structuredClone(model.get("content")); // plotly writes into what it is given
    el.style.display = data ? "" : "none";
    if (!data) return;
    const Plotly = await library("plotly", model, el, load);
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

export default { initialize, render };
