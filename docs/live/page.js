/*
 * A spiking network in the page: what is drawn goes through it, one time step after the other; spikes, membranes and vote are
 * shown. docs/mkdocs/live.py writes the network, and the runtime for it, to assets.js beside this file.
 *
 * `#stroke=20,20 80,20 50,90;30,60 70,60` in the address draws lines through points, in percent of the canvas.
 */
(() => {
  "use strict";

  const place = document.getElementById("live-digits");
  const folder = new URL(".", document.currentScript.src);
  const SIDE = 8, FINE = 32, LEVELS = 16; // The data: 32 x 32 points, of which each pixel counts a block of 4 x 4.
  const PEN = 5; // The width of a line in the data, in points.
  const PAUSE = 350; // Milliseconds between the time steps, as they are shown.
  const EXAMPLES = [
    "25,24 40,10 62,12 72,28 64,46 38,70 24,88 50,84 78,88", // 2
    "28,18 50,10 70,20 66,38 46,48 68,56 74,74 56,90 28,84", // 3
    "56,8 34,34 22,62 48,62 78,60;62,38 60,64 56,92", // 4
    "70,10 34,10 28,46 54,40 72,54 68,80 46,92 24,82", // 5
    "22,12 76,12 60,46 44,92", // 7
  ];
  // The README's test image, for which the network wavers between 3 and 8.
  const FIRST = [
    ...[0, 0, 5, 13, 16, 10, 1, 0],
    ...[0, 7, 16, 16, 16, 16, 7, 0],
    ...[0, 0, 5, 2, 11, 14, 5, 0],
    ...[0, 0, 0, 10, 15, 6, 0, 0],
    ...[0, 0, 9, 16, 13, 2, 0, 0],
    ...[0, 0, 4, 11, 15, 14, 0, 0],
    ...[0, 0, 2, 2, 13, 16, 1, 0],
    ...[0, 0, 5, 14, 15, 9, 0, 0],
  ];
  let picture = null, strokes = [], isDemonstration = true, example = 0, shown = 0, network = null;

  const element = (tag, name, parent, text = "") => {
    const made = document.createElement(tag);
    made.className = name;
    made.textContent = text;
    parent.append(made);
    return made;
  };

  place.textContent = "";
  const left = element("div", "live-left", place), right = element("div", "live-right", place);
  const paper = element("canvas", "live-paper", left);
  paper.width = paper.height = 256;
  paper.setAttribute("aria-label", "Draw a digit here");
  const buttons = element("div", "live-buttons", left);
  const clear = element("button", "", buttons, "Clear"), another = element("button", "", buttons, "Another one");
  const seen = element("canvas", "live-seen", left);
  seen.width = seen.height = SIDE;
  seen.title = "What the network sees: 8 x 8 pixels";
  const headline = element("p", "live-headline", right, "Loading the network …");
  headline.setAttribute("aria-live", "polite");
  const columns = element("div", "live-steps", right);
  element("p", "live-legend", right, "Membranes are blue, spikes orange. Each square of a layer is one of its channels.");

  // ---------------------------------------------------------------------------------------------------------------- drawing

  function drawPaper() {
    const context = paper.getContext("2d");
    context.fillStyle = "#0d1220";
    context.fillRect(0, 0, paper.width, paper.height);
    const side = paper.width / SIDE;
    (picture || []).forEach((count, index) => {
      context.fillStyle = `rgba(255, 255, 255, ${count / LEVELS})`;
      context.fillRect((index % SIDE) * side, Math.floor(index / SIDE) * side, side, side);
    });
    trace(context, strokes, (point) => point.map((value) => value * paper.width), (PEN / FINE) * paper.width * 0.75);
    if (isDemonstration || !strokes.length) {
      Object.assign(context, {fillStyle: "#ff9f1c", font: "bold 20px sans-serif", textAlign: "center"});
      context.fillText("draw here", paper.width / 2, paper.height - 8);
    }
  }

  function trace(context, lines, at, width) {
    Object.assign(context, {lineWidth: width, lineCap: "round", lineJoin: "round", strokeStyle: "white"});
    for (const line of lines) {
      context.beginPath();
      context.moveTo(...at(line[0]));
      for (const point of line.length > 1 ? line.slice(1) : line) context.lineTo(...at(point));
      context.stroke();
    }
  }

  /* As the data were made: the lines fill the height, in the middle, and each pixel counts the points of its block. */
  function pixels() {
    const points = strokes.flat(), xs = points.map(([x]) => x), ys = points.map(([, y]) => y);
    const [x0, x1, y0, y1] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
    const scale = (FINE - PEN) / Math.max(y1 - y0, x1 - x0, 0.1);
    const at = ([x, y]) => [FINE / 2 + (x - (x0 + x1) / 2) * scale, FINE / 2 + (y - (y0 + y1) / 2) * scale];
    const context = new OffscreenCanvas(FINE, FINE).getContext("2d");
    trace(context, strokes, at, PEN);
    const fine = context.getImageData(0, 0, FINE, FINE).data, block = FINE / SIDE, counts = new Array(SIDE * SIDE).fill(0);
    for (let y = 0; y < FINE; y++)
      for (let x = 0; x < FINE; x++)
        counts[Math.floor(y / block) * SIDE + Math.floor(x / block)] += fine[4 * (y * FINE + x) + 3] > 127 ? 1 : 0;
    return counts;
  }

  // ---------------------------------------------------------------------------------------------------------------- network

  const script = (source) =>
    new Promise((resolve, reject) => {
      const tag = document.createElement("script");
      Object.assign(tag, {src: source, onload: resolve, onerror: () => reject(new Error(`${source} is missing`))});
      document.head.append(tag);
    });

  async function unpacked(base64) {
    const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
  }

  /* All comes from assets.js, by addresses made here, because a page that is opened from disk may fetch nothing. */
  async function load() {
    await script(new URL("assets.js", folder).href);
    const assets = window.liveDigits;
    const text = await new Response(await unpacked(assets.runtime)).text();
    document.head.append(Object.assign(document.createElement("script"), {text}));
    const address = async (packed, type) => URL.createObjectURL(new Blob([await unpacked(packed)], {type}));
    const paths = {mjs: await address(assets.glue, "text/javascript"), wasm: await address(assets.wasm, "application/wasm")};
    Object.assign(ort.env.wasm, {numThreads: 1, wasmPaths: paths});
    const session = await ort.InferenceSession.create(new Uint8Array(await unpacked(assets.network)));
    return {...assets, session};
  }

  /* The time steps of the network for one image: for each, the mean of the logits so far, and the layers. */
  async function run(image) {
    const tensor = (values, shape) => new ort.Tensor("float32", Float32Array.from(values), shape);
    const states = {}, sums = new Array(10).fill(0), steps = [];
    for (const {state, shape} of network.layers)
      states[state] = tensor(new Array(shape.reduce((a, b) => a * b)).fill(0), [1, ...shape]);
    for (let t = 1; t <= network.timesteps; t++) {
      const found = await network.session.run({[network.input]: tensor(image, [1, SIDE, SIDE, 1]), ...states});
      found.logits.data.forEach((value, index) => (sums[index] += value));
      const layers = network.layers.map(({state, spikes, shape}) => {
        states[state] = found[`next_${state}`];
        return {shape, membranes: states[state].data, spikes: found[spikes].data};
      });
      steps.push({layers, logits: sums.map((sum) => sum / t)});
    }
    return steps;
  }

  function softmax(logits) {
    const powers = logits.map((value) => Math.exp(value - Math.max(...logits))), sum = powers.reduce((a, b) => a + b);
    return powers.map((power) => power / sum);
  }

  // ---------------------------------------------------------------------------------------------------------------- results

  /* The channels of a layer as squares side by side: membranes blue, spikes orange. */
  function drawLayer({shape: [height, width, channels], membranes, spikes}, parent) {
    const across = channels === 64 ? 8 : 16, canvas = element("canvas", "live-layer", parent);
    canvas.width = across * (width + 1) - 1;
    canvas.height = (channels / across) * (height + 1) - 1;
    const context = canvas.getContext("2d"), image = context.createImageData(canvas.width, canvas.height);
    for (let y = 0; y < height; y++)
      for (let x = 0; x < width; x++)
        for (let channel = 0; channel < channels; channel++) {
          const index = (y * width + x) * channels + channel;
          const row = Math.floor(channel / across) * (height + 1) + y, column = (channel % across) * (width + 1) + x;
          const level = Math.max(0, Math.min(1, membranes[index]));
          const colour = spikes[index] ? [255, 159, 28, 255] : [20 + 30 * level, 30 + 90 * level, 58 + 170 * level, 255];
          image.data.set(colour, 4 * (row * canvas.width + column));
        }
    context.putImageData(image, 0, 0);
  }

  function drawVote(shares, parent) {
    const vote = element("div", "live-vote", parent), best = shares.indexOf(Math.max(...shares));
    shares.forEach((share, digit) => {
      const bar = element("span", digit === best ? "live-best" : "", vote, String(digit));
      bar.style.setProperty("--share", `${Math.round(100 * share)}%`);
      bar.title = `${digit}: ${Math.round(100 * share)} %`;
    });
  }

  function show(image, steps) {
    const number = ++shown, votes = steps.map(({logits}) => softmax(logits));
    const sure = votes.findIndex((shares) => Math.max(...shares) >= network.confidence) + 1;
    const digit = votes[(sure || votes.length) - 1].reduce((best, share, index, all) => (share > all[best] ? index : best), 0);
    const spikes = steps.map(({layers}) => layers.map((layer) => layer.spikes.reduce((a, b) => a + b)));
    place.dataset.result = JSON.stringify({image, logits: steps.map(({logits}) => logits), spikes, sure, digit});
    const context = seen.getContext("2d"), data = context.createImageData(SIDE, SIDE);
    image.forEach((count, index) => data.data.set([255, 255, 255, (255 * count) / LEVELS], 4 * index));
    context.putImageData(data, 0, 0);
    columns.textContent = "";
    headline.textContent = "…";
    steps.forEach((step, index) =>
      setTimeout(() => {
        if (number !== shown) return; // Another drawing has taken the place.
        const column = element("div", "live-step", columns);
        element("div", "live-title", column, `step ${index + 1}`);
        for (const layer of step.layers) drawLayer(layer, column);
        drawVote(votes[index], column);
        if (sure && index + 1 >= sure) {
          const share = Math.round(100 * votes[sure - 1][digit]);
          headline.innerHTML = `<b>${digit}</b>: sure at step ${sure} (${share} %)`;
          if (index + 1 === sure) column.classList.add("live-sure");
        } else if (index + 1 === steps.length)
          headline.innerHTML = `<b>${digit}</b>, but not sure: ${Math.round(100 * votes[index][digit])} %`;
      }, PAUSE * index)
    );
  }

  async function look() {
    drawPaper();
    if (!network || !strokes.length) return;
    const image = pixels();
    show(image, await run(image));
  }

  // ------------------------------------------------------------------------------------------------------------------ input

  let isDown = false;
  const position = (event) => {
    const box = paper.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  };
  paper.addEventListener("pointerdown", (event) => {
    if (isDemonstration) [picture, strokes] = [null, []];
    [isDown, isDemonstration] = [true, false];
    strokes.push([position(event)]);
    drawPaper();
  });
  window.addEventListener("pointermove", (event) => {
    if (!isDown) return;
    strokes.at(-1).push(position(event));
    drawPaper();
  });
  const lift = () => {
    if (isDown) look();
    isDown = false;
  };
  window.addEventListener("pointerup", lift);
  window.addEventListener("pointercancel", lift);

  function empty() {
    [picture, strokes, isDemonstration] = [null, [], false];
    shown++;
    columns.textContent = headline.textContent = "";
    seen.getContext("2d").clearRect(0, 0, SIDE, SIDE);
    drawPaper();
  }
  clear.addEventListener("click", empty);
  another.addEventListener("click", () => {
    demonstrate(EXAMPLES[example++ % EXAMPLES.length]);
  });

  /* Draws as a hand does: by events of a pointer. */
  function demonstrate(lines) {
    empty();
    const box = paper.getBoundingClientRect();
    const send = (type, [x, y]) => {
      const place = {clientX: box.left + (x / 100) * box.width, clientY: box.top + (y / 100) * box.height};
      paper.dispatchEvent(new PointerEvent(type, {bubbles: true, ...place}));
    };
    for (const line of lines.split(";")) {
      const points = line.split(" ").map((point) => point.split(",").map(Number));
      send("pointerdown", points[0]);
      points.slice(1).forEach((point) => send("pointermove", point));
      send("pointerup", points.at(-1));
    }
    isDemonstration = true;
    drawPaper();
  }

  const asked = new URLSearchParams(location.hash.slice(1)).get("stroke");
  if (!asked) picture = FIRST;
  drawPaper();
  load().then(
    async (loaded) => {
      network = loaded;
      if (asked) return demonstrate(asked);
      const steps = await run(FIRST);
      // A reader may have begun to draw.
      if (picture) show(FIRST, steps);
    },
    (error) => {
      headline.textContent = `The network cannot be shown: ${error.message}.`;
    }
  );
})();
