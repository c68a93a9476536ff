"use strict";
// The networks of the live page in plain JavaScript, then the page's interface. No library is used.
// An image holds 784 pixels, row by row, from 0 (paper) to 1 (ink). A code z holds latentDim numbers.
const SIDE = 28, PIXELS = SIDE * SIDE, { floor, max, min } = Math;
const times = (count, make) => Array.from({ length: count }, (_, n) => make(n));
const bytes = text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
const floats = text => Float32Array.from(new Uint16Array(bytes(text).buffer), fromHalf);
const pieces = (array, size) => times(array.length / size, n => array.subarray(n * size, (n + 1) * size));

// Half precision: one bit for the sign, five for the exponent, ten for the fraction.
function fromHalf(bits) {
  const exponent = bits >> 10 & 31, fraction = (bits & 1023) / 1024;
  return (bits >> 15 ? -1 : 1) * (exponent ? 2 ** (exponent - 15) * (1 + fraction) : 2 ** -14 * fraction);
}

const linear = ({ weight, bias }, x) => bias.map((sum, o) => {  // weight: (outputs, inputs)
  for (let i = 0; i < x.length; i++) sum += weight[o * x.length + i] * x[i];
  return sum;
});

// A 3×3 convolution of stride 2 adds nine pixels of the large image to each pixel of the small one. The
// transposed convolution adds each pixel of the small image to the same nine pixels of the large one.
// All channels of a pixel stand together; weight: (row, column, outputs, inputs).
function convolve({ kind, weight, bias, from: [inputs, sizeIn], to: [outputs, sizeOut] }, x) {
  const transposed = kind === "ConvTranspose2d", y = new Float32Array(sizeOut * sizeOut * outputs);
  const [small, large] = transposed ? [sizeIn, sizeOut] : [sizeOut, sizeIn];
  for (let start = 0; start < y.length; start += outputs) y.set(bias, start);
  for (let pixel = 0; pixel < small * small; pixel++) {
    for (let tap = 0; tap < 9; tap++) {
      const row = 2 * floor(pixel / small) + floor(tap / 3) - 1;
      const column = 2 * (pixel % small) + tap % 3 - 1;
      if (row < 0 || column < 0 || row >= large || column >= large) continue;  // padding
      const other = row * large + column;
      const start = (transposed ? pixel : other) * inputs, end = (transposed ? other : pixel) * outputs;
      for (let o = 0; o < outputs; o++) {
        let sum = 0;
        for (let i = 0; i < inputs; i++) sum += weight[(tap * outputs + o) * inputs + i] * x[start + i];
        y[end + o] += sum;
      }
    }
  }
  return y;
}

// Torch orders the features of a linear layer by channel, convolve by pixel: this transposes a matrix.
const transpose = (x, columns, rows = x.length / columns) =>
  x.map((_, n) => x[n % rows * columns + floor(n / rows)]);
const layers = {  // by the name of torch's layer
  Linear: linear, Conv2d: convolve, ConvTranspose2d: convolve,
  Flatten: ({ from: [channels] }, x) => transpose(x, channels),
  Unflatten: ({ to: [, height, width] }, x) => transpose(x, height * width),
  SiLU: (_, x) => x.map(v => v / (1 + Math.exp(-v))),
  Sigmoid: (_, x) => x.map(v => 1 / (1 + Math.exp(-v))),
};
const unpacked = half => half.map(layer =>
  "weight" in layer ? { ...layer, weight: floats(layer.weight), bias: floats(layer.bias) } : layer);
const run = (half, x) => half.reduce((x, layer) => layers[layer.kind](layer, x), x);
const average = list => list.reduce((sum, v) => sum + v, 0) / list.length;
const gaussian = () => Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());

// PCA is an auto-encoder too: its encoder and its decoder are one linear layer each.
class AutoEncoder {
  constructor({ encoder, decoder, codes, latentDim, error }) {
    this.encoder = unpacked(encoder);
    this.decoder = unpacked(decoder);
    this.codes = pieces(floats(codes), latentDim);  // of the page's test images
    this.usualError = error;  // their mean error
    this.mean = this.codes[0].map((_, i) => average(this.codes.map(z => z[i])));
    this.sd = this.mean.map((mean, i) => Math.sqrt(average(this.codes.map(z => (z[i] - mean) ** 2))));
  }
  encode(x) { return run(this.encoder, x); }
  decode(z) { return run(this.decoder, z); }
  sample() {  // from the Gaussian with the mean and the covariance of the codes: mean + Σ noise · (z − mean)
    const noise = this.codes.map(() => gaussian() / Math.sqrt(this.codes.length));
    return this.mean.map((mean, i) => this.codes.reduce((sum, z, n) => sum + noise[n] * (z[i] - mean), mean));
  }
}
function distance(a, b) {  // squared
  let sum = 0;
  for (let n = 0; n < a.length; n++) sum += (a[n] - b[n]) ** 2;
  return sum;
}
const mix = (alpha, first, second) => first.map((v, n) => alpha * v + (1 - alpha) * second[n]);

// A drawing (ImageData of a square canvas) in the form of MNIST's digits: in a box of 20 × 20 pixels,
// its centre of mass on pixel (14, 14). Each of its pixels adds ink to the four pixels around its new place.
function centred({ data, width }) {
  const image = new Float32Array(PIXELS), inked = [], ink = n => data[4 * n + 3];  // its opacity, 0 to 255
  for (let n = 0; n < width * width; n++) if (ink(n)) inked.push(n);
  let mass = 0, xMass = 0, yMass = 0, left = width, right = 0, top = width, bottom = 0;
  for (const n of inked) {
    const x = n % width, y = floor(n / width);
    [left, right, top, bottom] = [min(left, x), max(right, x), min(top, y), max(bottom, y)];
    [mass, xMass, yMass] = [mass + ink(n), xMass + ink(n) * x, yMass + ink(n) * y];
  }
  const scale = 20 / (max(right - left, bottom - top) + 1);
  for (const n of inked) {
    const x = (n % width - xMass / mass) * scale + 14, y = (floor(n / width) - yMass / mass) * scale + 14;
    for (let corner = 0; corner < 4; corner++) {
      const column = floor(x) + corner % 2, row = floor(y) + (corner >> 1);
      if (row < 0 || column < 0 || row >= SIDE || column >= SIDE) continue;
      const share = (1 - Math.abs(x - column)) * (1 - Math.abs(y - row)) * scale ** 2;
      image[row * SIDE + column] += share * ink(n);
    }
  }
  return image.map(v => min(v / 255, 1));
}

// The interface. When the image changes, the first part is drawn at once, the others once that is painted.
const $ = selector => document.querySelector(selector);
const stored = JSON.parse($("#data").textContent);
const names = Object.keys(stored.methods), methods = names.map(name => new AutoEncoder(stored.methods[name]));
const testImages = pieces(Float32Array.from(bytes(stored.images), v => v / 255), PIXELS);  // ordered by digit
const perDigit = testImages.length / 10, digitOf = n => floor(n / perDigit);
const [d2, d10] = methods, current = {}, parts = [], afterPaint = work => requestAnimationFrame(() => setTimeout(work));
function show(image, index) {  // index: of a test image, undefined for a drawing
  Object.assign(current, { image, index, codes: methods.map(method => method.encode(image)) });
  parts[0]();
  afterPaint(() => current.image === image && parts.slice(1).forEach(part => part()));
}
const add = (parent, html) => ($(parent).insertAdjacentHTML("beforeend", html), $(parent).lastElementChild);
function tile(parent, name) {  // a picture with its name and words; returns the function that changes it
  const html = `<figure><b>${name}</b><canvas width="28" height="28" role="img"></canvas><figcaption>`;
  const [, canvas, caption] = add(parent, html).children, context = canvas.getContext("2d");
  const pixels = context.createImageData(SIDE, SIDE);
  return (image, words = "") => {
    image.forEach((v, n) => pixels.data[4 * n + 3] = 255 * v);  // black ink; the page puts white behind it
    context.putImageData(pixels, 0, 0);
    caption.textContent = words;
    canvas.setAttribute("aria-label", `${name}: ${words}`);
  };
}
function row(parent, name, count) {
  add(parent, `<div class="row"><b>${name}</b></div>`);
  return times(count, () => tile(`${parent} .row:last-child`, name));
}
function picker(parent, take) {  // ten buttons, each for the next test image of its digit
  times(10, (digit, count = 0) => add(parent, `<button aria-label="test image ${digit}">${digit}</button>`)
    .onclick = () => take(digit * perDigit + count++ % perDigit));
}
function follow(element, move) {  // a mouse, finger or pen pressed on an element, at a place from 0 to 1
  const tell = (event, start) =>
    move([event.offsetX / element.clientWidth, event.offsetY / element.clientHeight], start);
  element.onpointerdown = event => {
    if (!event.isPrimary || event.button) return;
    element.setPointerCapture(event.pointerId);
    tell(event, true);
  };
  element.onpointermove = event => {
    if (event.isPrimary && element.hasPointerCapture(event.pointerId)) tell(event);
  };
}

// 1. Reconstruct
const paper = $("#paper"), size = paper.width, pen = paper.getContext("2d", { willReadFrequently: true });
const seen = tile("#rebuilt", "input"), rebuilt = names.map(name => tile("#rebuilt", name));
Object.assign(pen, { lineWidth: size / 12, lineCap: "round", lineJoin: "round" });
const clear = () => pen.clearRect(0, 0, size, size);
function stroke(...points) {
  pen.beginPath();
  points.forEach(([x, y]) => pen.lineTo(x * size, y * size));
  pen.stroke();
  show(centred(pen.getImageData(0, 0, size, size)));
}
let last, code;  // where the pen was, and the code of the point in the plane
follow(paper, (place, start) => {
  if (start && current.index !== undefined) clear();
  stroke(start ? place.map(v => v - 1e-3) : last, place);  // a stroke of no length would leave no dot
  last = place;
});
function take(index) {
  show(testImages[index], index);
  clear();
  pen.drawImage($("#rebuilt canvas"), 0, 0, size, size);
}
picker("#take", take);
$("#clear").onclick = () => [clear(), stroke()];
$("#house").onclick = () => [clear(), stroke([.2, .8], [.2, .4], [.5, .1], [.8, .4], [.8, .8], [.2, .8])];
parts.push(() => {
  seen(current.image, "28 × 28 pixels");
  methods.forEach((method, n) => {
    const xHat = method.decode(current.codes[n]), error = distance(xHat, current.image) / PIXELS;
    rebuilt[n](xHat, `error ${error.toFixed(error < 5e-4 ? 6 : 4)}\n${(error / method.usualError).toFixed(1)} × usual`);
  });
});

// 2. Move the code: a point in the plane for d = 2, ten sliders for d = 10
const plane = $("#plane"), planeTile = tile("#moved2", "d = 2"), sliderTile = tile("#moved10", "d = 10");
const reach = axis => (axis ? -2.8 : 2.8) * d2.sd[axis];  // from the middle of the plane to its border
const place = z => z.map((v, axis) => 200 + 200 * (v - d2.mean[axis]) / reach(axis));
const arrows = { ArrowLeft: [-.2, 0], ArrowRight: [.2, 0], ArrowUp: [0, .2], ArrowDown: [0, -.2] };
function moveTo(z) {
  code = z;
  const words = `z = (${[...z].map(v => v.toFixed(1).replace("-", "−")).join(", ")})`;
  $("#point").setAttribute("transform", `translate(${place(z).map(v => max(0, min(400, v)))})`);
  plane.setAttribute("aria-valuetext", words);
  planeTile(d2.decode(z), words);
}
d2.codes.forEach((z, n) =>
  add("#codes", `<text class="digit${digitOf(n)}" transform="translate(${place(z)})">${digitOf(n)}</text>`));
follow(plane, at => moveTo(d2.mean.map((mean, axis) => mean + (2 * at[axis] - 1) * reach(axis))));
plane.onkeydown = event => {
  if (!(event.key in arrows)) return;
  event.preventDefault();  // the page must not scroll
  moveTo(code.map((v, axis) => v + arrows[event.key][axis]));
};
const sliders = times(10, n => add("#sliders", `<label><span>z<sub>${n + 1}</sub></span>
  <input type="range" min="-3" max="3" step="0.1"></label>`).lastElementChild);
const slide = $("#sliders").oninput = () => {
  const z = current.codes[1].map((v, n) => v + sliders[n].value * d10.sd[n]);
  sliderTile(d10.decode(z), sliders.some(slider => Number(slider.value)) ? "changed" : "the digit above");
};
parts.push($("#back2").onclick = () => moveTo(current.codes[0]));
parts.push($("#back10").onclick = () => [sliders.forEach(slider => slider.value = 0), slide()]);

// 3. Interpolate
const ends = [], alpha = $("#alpha"), endTiles = [tile("#first", "first"), tile("#second", "second")];
const blends = [...names, "pixels"].map(name => row("#between", name, 6));
function blend(column, a) {
  const images = methods.map((method, n) => method.decode(mix(a, ends[0].codes[n], ends[1].codes[n])));
  images.push(mix(a, ends[0].image, ends[1].image));
  images.forEach((image, n) => blends[n][column](image, a.toFixed(2)));
}
alpha.oninput = () => blend(0, Number(alpha.value));
function setEnd(n, image) {
  ends[n] = { image, codes: methods.map(method => method.encode(image)) };
  endTiles[n](image, `α = ${1 - n}`);
  if (ends.length < 2) return;
  alpha.oninput();
  afterPaint(() => [1, .75, .5, .25, 0].forEach((a, column) => blend(column + 1, a)));
}
["#pick-first", "#pick-second"].forEach((name, n) => {
  picker(name, index => setEnd(n, testImages[index]));
  add(name, "<button type=button>the digit above").onclick = () => setEnd(n, current.image);
});

// 4. Random codes and similar images
const random = names.map(name => row("#random", name, 5));
const sample = n => random[n].forEach(set => set(methods[n].decode(methods[n].sample())));
$("#sample").onclick = () => [sample(0), afterPaint(() => [1, 2, 3].forEach(sample))];
const similar = [...names, "pixels"].map(name => row("#similar", name, 6));
parts.push(() => similar.forEach((tiles, n) => {
  const known = methods[n]?.codes ?? testImages, own = current.codes[n] ?? current.image;
  const far = known.map((other, at) => at === current.index ? Infinity : distance(other, own));
  const order = times(known.length, at => at).sort((a, b) => far[a] - far[b]);
  tiles.forEach((set, rank) => set(testImages[order[rank]], digitOf(order[rank])));
}));
$("#sample").click();
[0, 1].forEach((digit, n) => setEnd(n, testImages[digit * perDigit]));
take(3 * perDigit);
