// Draws the figures of a report. Plotly stands in the page packed to a third of its size, so it is unpacked first.
(async () => {
  const say = (text) => document.querySelectorAll(".wb-figure").forEach((place) => (place.textContent = text));
  try {
    const packed = Uint8Array.from(atob(document.getElementById("plotly").textContent), (c) => c.charCodeAt(0));
    const plain = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(plain).text();
    document.head.append(script);
    for (const place of document.querySelectorAll(".wb-figure")) {
      const { data, layout } = JSON.parse(place.nextElementSibling.textContent);
      await window.Plotly.newPlot(place, data, layout, { displaylogo: false, showSendToCloud: false });
    }
  } catch (error) {
    say(`This figure could not be drawn (${error.message}): open the page in a browser of 2023 or later.`);
    throw error;
  }
})();
