// From a photo to the network's input, to the bit as the exporter does it: resize the short side with Pillow's
// antialiased filter in 22-bit fixed point (rows first, then columns), crop the centre, (x/255 - mean)/std in float32.

const PRECISION_BITS = 22;
const STRIP_PIXELS = 1 << 21; // of a photo at a time: browsers of phones refuse large canvases

const FILTERS = {
  bilinear: { support: 1, at: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: {
    support: 2,
    at: (x) => {
      const a = -0.5, d = Math.abs(x);
      if (d < 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
      return d < 2 ? (((d - 5) * d + 8) * d - 4) * a : 0;
    },
  },
};

/** For each output pixel: the first input pixel that it reads, and integer weights that sum to about 2^22. */
export function weights(inside, outside, filter) {
  const scale = inside / outside, stretch = Math.max(scale, 1), support = filter.support * stretch;
  return Array.from({ length: outside }, (_, index) => {
    const centre = (index + 0.5) * scale;
    const first = Math.max(Math.trunc(centre - support + 0.5), 0);
    const last = Math.min(Math.trunc(centre + support + 0.5), inside);
    const raw = Array.from({ length: last - first }, (_, k) => filter.at((k + first - centre + 0.5) * (1 / stretch)));
    const total = raw.reduce((sum, value) => sum + value, 0);
    const fixed = raw.map((value) => (total ? value / total : value) * (1 << PRECISION_BITS));
    return { first, values: Int32Array.from(fixed, (value) => Math.trunc(value + (value < 0 ? -0.5 : 0.5))) };
  });
}

const clip = (sum) => Math.min(Math.max(sum >> PRECISION_BITS, 0), 255);

/** Resize `rows` rows of RGBA pixels to another width, RGB. */
function resizeRows(rgba, width, rows, table, out, offset) {
  for (let y = 0; y < rows; y++) {
    for (const { first, values } of table) {
      let r = 1 << (PRECISION_BITS - 1), g = r, b = r;
      for (let k = 0, from = 4 * (y * width + first); k < values.length; k++, from += 4) {
        r += rgba[from] * values[k];
        g += rgba[from + 1] * values[k];
        b += rgba[from + 2] * values[k];
      }
      out[offset++] = clip(r);
      out[offset++] = clip(g);
      out[offset++] = clip(b);
    }
  }
}

/** Resize RGB pixels of one width to another height. */
function resizeColumns(rgb, width, table) {
  const out = new Uint8ClampedArray(table.length * width * 3);
  table.forEach(({ first, values }, y) => {
    for (let x = 0; x < 3 * width; x++) {
      let sum = 1 << (PRECISION_BITS - 1);
      for (let k = 0; k < values.length; k++) sum += rgb[(first + k) * 3 * width + x] * values[k];
      out[y * 3 * width + x] = clip(sum);
    }
  });
  return out;
}

const halfToEven = (value) => {
  const down = Math.floor(value), rest = value - down;
  return rest > 0.5 || (rest === 0.5 && down % 2 !== 0) ? down + 1 : down;
};

function crop({ width, height, rgb }, side) {
  const left = halfToEven((width - side) / 2), top = halfToEven((height - side) / 2);
  const out = new Uint8Array(side * side * 3);
  for (let y = 0; y < side; y++) {
    const start = 3 * ((top + y) * width + left);
    out.set(rgb.subarray(start, start + 3 * side), 3 * y * side);
  }
  return out;
}

/** What the network sees of an image (bitmap or video frame): RGB, Uint8Array of crop·crop·3. */
export function croppedPixels(image, width, height, how, refuseAlpha = true) {
  const wide = width > height;
  const outWidth = wide ? Math.trunc((how.resize_px * width) / height) : how.resize_px;
  const outHeight = wide ? how.resize_px : Math.trunc((how.resize_px * height) / width);
  const filter = FILTERS[how.interpolation], table = weights(width, outWidth, filter);
  const rgb = new Uint8ClampedArray(outWidth * height * 3);
  const rows = Math.max(Math.min(Math.floor(STRIP_PIXELS / width), height), 1);
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = rows;
  const context = canvas.getContext("2d", { willReadFrequently: true, colorSpace: "srgb" });
  for (let top = 0; top < height; top += rows) {
    const count = Math.min(rows, height - top);
    context.clearRect(0, 0, width, rows);
    context.drawImage(image, 0, top, width, count, 0, 0, width, count);
    const rgba = context.getImageData(0, 0, width, count).data;
    if (refuseAlpha && !isOpaque(rgba)) throw new Error("This picture is partly transparent: flatten it first.");
    resizeRows(rgba, width, count, table, rgb, 3 * top * outWidth);
  }
  canvas.width = canvas.height = 0; // Safari keeps the memory otherwise
  const resized = resizeColumns(rgb, outWidth, weights(height, outHeight, filter));
  return crop({ width: outWidth, height: outHeight, rgb: resized }, how.crop_px);
}

function isOpaque(rgba) {
  for (let index = 3; index < rgba.length; index += 4) if (rgba[index] !== 255) return false;
  return true;
}

/** Decode a photo and return its cropped pixels; what cannot be used is refused in one sentence. */
export async function readPhoto(photo, how, limits) {
  const [width, height] = await sizeOf(photo);
  if (width * height > limits.most_pixels) {
    const most = (limits.most_pixels / 1e6).toFixed(0);
    throw new Error(`This photo has ${(width * height / 1e6).toFixed(0)} million pixels; ${most} million are the most: scale it down first.`);
  }
  const short = Math.min(width, height);
  if (short < limits.shortest_side_px) throw new Error(`This picture is ${width}×${height} px; its short side has to be ${limits.shortest_side_px} px at least.`);
  if (Math.max(width, height) > limits.largest_aspect_ratio * short) throw new Error(`This picture is longer than ${limits.largest_aspect_ratio}:1: cut the part out that shows the object.`);
  let bitmap;
  try {
    bitmap = await createImageBitmap(photo, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  } catch {
    throw new Error("This picture cannot be decoded: it is damaged, or too large for this browser.");
  }
  try {
    return croppedPixels(bitmap, bitmap.width, bitmap.height, how);
  } finally {
    bitmap.close();
  }
}

/** Width and height of a photo, known before its pixels are decoded. */
async function sizeOf(photo) {
  const image = new Image(), address = URL.createObjectURL(photo);
  try {
    await new Promise((resolve, reject) => {
      image.onload = resolve;
      image.onerror = () => reject(new Error("This file is not a picture that this browser can read."));
      image.src = address;
    });
    return [image.naturalWidth, image.naturalHeight];
  } finally {
    URL.revokeObjectURL(address);
  }
}

/** A file's input from cropped pixels: as they are, or normalized, in the file's layout. */
export function feed(pixels, input, how) {
  if (input.type === "uint8" && input.values === "rgb") return pixels;
  if (input.type !== "float32") return null;
  const table = how.mean.map((mean, channel) =>
    Float32Array.from({ length: 256 }, (_, x) => Math.fround(Math.fround(Math.fround(x / 255) - Math.fround(mean)) / Math.fround(how.std[channel]))));
  const area = pixels.length / 3, out = new Float32Array(pixels.length);
  const planes = input.layout === "NCHW";
  for (let index = 0; index < pixels.length; index++) {
    const channel = index % 3;
    out[planes ? channel * area + (index - channel) / 3 : index] = table[channel][pixels[index]];
  }
  return out;
}
