// The page's side of scatter.Points: jupyter-scatter's own, two megabytes which the kernel sends once for all maps.

async function render(given) {
  const scatter = await library("jupyter-scatter", given.model, given.el, (url) => import(url));
  return scatter.default.render(given);
}

export default { initialize, render };
