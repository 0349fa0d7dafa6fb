// What do a video's frames and its sound hold? The very bytes that servers decode, frame by frame.
//
// Codecs are exact, so planes of brightness and colour are the servers' own; they become RGB here by
// the same integers as in `video.py`. Loaded when the first video comes.

import {
  BufferSource,
  EncodedPacketSink,
  Input,
  type InputFormat,
  type InputTrack,
  type InputVideoTrack,
  MATROSKA,
  MP4,
  QTFF,
  type VideoSample,
  VideoSampleSink,
  WEBM,
} from "mediabunny";
import { TriviumError, text } from "./faults";
import { type Pixels, rgb, shrink, sides } from "./pictures";
import { heard, packets, unsuited, within } from "./sounds";

const MOST_BYTES = 32 << 20;
const MOST_SECONDS = 3600;
const MOST_PIXELS = 4096 * 2304;
const LEAST_SECONDS = 0.001;
const WORK_SECONDS = 60;
const SLOW =
  `the video's frames take more than ${WORK_SECONDS} s to decode: ` +
  "ask for fewer, or make it smaller";

/** The media types that are taken, and as what each is read; null: only by servers. */
const VIDEOS: Record<string, InputFormat[] | null> = {
  "video/mp4": [MP4, QTFF],
  "video/x-m4v": [MP4, QTFF],
  "video/quicktime": [MP4, QTFF],
  "video/webm": [WEBM, MATROSKA],
  "video/x-matroska": [WEBM, MATROSKA],
  "video/matroska": [WEBM, MATROSKA],
  "video/x-msvideo": null,
  "video/avi": null,
  "video/vnd.avi": null,
};

const CODECS = ["avc", "hevc", "vp8", "vp9", "av1"];

const BT601 = [0.299, 0.114] as const;
const BT709 = [0.2126, 0.0722] as const;
const BT2020 = [0.2627, 0.0593] as const;
const WEIGHTS: Record<string, readonly [number, number]> = {
  bt709: BT709,
  bt470bg: BT601,
  smpte170m: BT601,
  "bt2020-ncl": BT2020,
};
/** Lines up to which BT.601 is meant where nothing is said. */
const SMALL = 576;

/** How often colours are halved across and down, and whether both lie in one plane. */
const HALVED: Record<string, readonly [number, number, boolean]> = {
  I420: [1, 1, false],
  I420A: [1, 1, false],
  I422: [1, 0, false],
  I444: [0, 0, false],
  NV12: [1, 1, true],
};

/** A frame, and when it begins to be shown, in seconds from the first one. */
export interface Shown extends Pixels {
  at: number;
}

/** A video that was opened; `close` gives back what decoding takes. */
export interface Film {
  readonly seconds: number;
  /** The frames that are shown at these times, which rise, each once. */
  frames(times: readonly number[]): AsyncGenerator<Shown, void>;
  sound(): Promise<Float32Array<ArrayBuffer> | null>;
  close(): void;
}

/** Opens a video within limits that hold before anything is decoded. */
export async function video(
  data: Uint8Array<ArrayBuffer>,
  media: string,
  bound: number,
): Promise<Film> {
  const formats = VIDEOS[media];
  if (formats === undefined) {
    throw bad(`media type '${media}' is not one of ${Object.keys(VIDEOS).join(", ")}`);
  }
  if (formats === null) throw unsuited(`the page can't read ${media}`);
  if (!data.length) throw bad("the video is empty");
  if (data.length > MOST_BYTES) {
    throw large(`the video has ${data.length} bytes; at most ${MOST_BYTES} are allowed`);
  }
  packets(data, media);
  const input = new Input({ source: new BufferSource(data), formats });
  const close = (): void => input.dispose();
  try {
    return { ...(await opened(input, media, bound)), close };
  } catch (error) {
    close();
    throw refused(error, media);
  }
}

async function opened(input: Input, media: string, bound: number): Promise<Omit<Film, "close">> {
  if (!(await input.canRead())) throw bad(`the ${media} is damaged or not readable`);
  const track = (await input.getVideoTracks())[0];
  if (!track) throw bad("the file has no video track");
  const codec = await track.getCodec();
  if (!codec || !CODECS.includes(codec)) {
    // Servers know more codecs, and say so if they don't.
    throw unsuited(`the page can't decode ${codec ?? "this codec"}`);
  }
  small(await track.getCodedWidth(), await track.getCodedHeight());
  const spoken = (await input.getAudioTracks())[0] ?? null;
  const tracks: InputTrack[] = spoken ? [track, spoken] : [track];
  const stated = (await input.getDurationFromMetadata(tracks)) ?? 0;
  if (stated > MOST_SECONDS) throw long(stated);
  const first = await track.getFirstTimestamp();
  let last = -Infinity;
  let end = -Infinity;
  for (const each of tracks) {
    const packet = await new EncodedPacketSink(each).getPacket(Infinity);
    last = Math.max(last, packet?.timestamp ?? -Infinity);
    end = Math.max(end, (packet?.timestamp ?? -Infinity) + (packet?.duration ?? 0));
  }
  if (!Number.isFinite(last)) throw bad("the video has no frames");
  const seconds = Math.max(stated, last - first, LEAST_SECONDS);
  if (seconds > MOST_SECONDS) throw long(seconds);
  if (end - first < 0.9 * stated - 0.5) {
    throw bad(
      `the video ends after ${(end - first).toFixed(1)} of the ${stated.toFixed(1)} seconds ` +
        "its head states",
    );
  }
  if (!(await track.canDecode())) {
    throw unsuited(`this browser can't decode ${codec}`);
  }
  return {
    seconds,
    frames: (times) => frames(track, times, first, bound, media),
    sound: async () => {
      const samples = spoken && (await heard(spoken, first));
      return samples?.length ? samples : null;
    },
  };
}

async function* frames(
  track: InputVideoTrack,
  times: readonly number[],
  first: number,
  bound: number,
  media: string,
): AsyncGenerator<Shown, void> {
  const said = (await track.getColorSpace()).matrix ?? null;
  const asked = times.map((each) => first + each + 1e-6);
  const samples = new VideoSampleSink(track).samplesAtTimestamps(asked);
  let left = WORK_SECONDS * 1e3;
  let before = -Infinity;
  try {
    for (;;) {
      const begun = performance.now();
      const { value, done } = await within(samples.next(), begun + left, SLOW);
      if (done) return;
      if (!value) continue;
      let shown: Shown | null = null;
      try {
        if (value.timestamp > before) {
          before = value.timestamp;
          shown = { ...(await pixels(value, said, bound)), at: value.timestamp - first };
        }
      } finally {
        value.close();
      }
      left -= performance.now() - begun;
      if (shown) yield shown;
    }
  } catch (error) {
    throw refused(error, media);
  } finally {
    // Not awaited: it may wait for the very frame that never comes.
    void samples.return(undefined).catch(() => undefined);
  }
}

/** RGB of a frame, upright; `said` is what the container says of its colours. */
async function pixels(sample: VideoSample, said: string | null, bound: number): Promise<Pixels> {
  const { width, height } = sample.visibleRect;
  small(width, height);
  const factor = shrink(Math.min(width, height), bound);
  const halved = HALVED[sample.format ?? ""];
  if (!halved) {
    const canvas = new OffscreenCanvas(sample.displayWidth, sample.displayHeight);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    if (!context) throw new TriviumError("tier_failed", "this browser has no canvas in workers");
    sample.draw(context, 0, 0);
    return rgb(context.getImageData(0, 0, canvas.width, canvas.height), factor);
  }
  const [across, down, joint] = halved;
  const data = new Uint8Array(sample.allocationSize());
  const planes = await sample.copyTo(data);
  const at = (place: number): Plane => {
    const { offset, stride } = planes[place]!;
    return { data, offset, stride, step: 1, width, height };
  };
  const wide = (width + across) >> across;
  const high = (height + down) >> down;
  const colour = (place: number): Plane => {
    const plane = joint ? at(1) : at(place);
    const offset = plane.offset + (joint ? place - 1 : 0);
    return { ...plane, offset, step: joint ? 2 : 1, width: wide, height: high };
  };
  const bright = means(at(0), factor, factor);
  const blue = means(colour(1), Math.max(1, factor >> across), Math.max(1, factor >> down));
  const red = means(colour(2), Math.max(1, factor >> across), Math.max(1, factor >> down));
  // What is unsaid is taken for BT.709 on the way here.
  const matrix = sample.colorSpace.matrix ?? "";
  const unsaid = Math.min(width, height) <= SMALL ? BT601 : BT709;
  const weights = !said && matrix === "bt709" ? unsaid : (WEIGHTS[matrix] ?? unsaid);
  const doubled = factor === 1 ? ([across, down] as const) : ([0, 0] as const);
  const full = sample.colorSpace.fullRange === true;
  return turned(coloured(bright, blue, red, doubled, weights, full), sample.rotation);
}

interface Plane {
  data: Uint8Array;
  offset: number;
  stride: number;
  /** From one value to the next. */
  step: number;
  width: number;
  height: number;
}

interface Means {
  values: Uint8Array;
  width: number;
  height: number;
}

/** Means of blocks; what lies beyond the edge is as the edge is. */
function means(plane: Plane, across: number, down: number): Means {
  const { data, offset, stride, step } = plane;
  const width = Math.ceil(plane.width / across);
  const height = Math.ceil(plane.height / down);
  const values = new Uint8Array(width * height);
  const half = (across * down) >> 1;
  const count = across * down;
  let to = 0;
  for (let top = 0; top < height; top++) {
    for (let left = 0; left < width; left++) {
      let sum = half;
      for (let i = 0; i < down; i++) {
        const row = offset + Math.min(plane.height - 1, top * down + i) * stride;
        for (let j = 0; j < across; j++) {
          sum += data[row + Math.min(plane.width - 1, left * across + j) * step]!;
        }
      }
      values[to++] = Math.floor(sum / count);
    }
  }
  return { values, width, height };
}

function coloured(
  bright: Means,
  blue: Means,
  red: Means,
  [across, down]: readonly [number, number],
  [kr, kb]: readonly [number, number],
  full: boolean,
): Pixels {
  const kg = 1 - kr - kb;
  const reach = full ? 1 : 255 / 224;
  const gain = whole(full ? 1 : 255 / 219);
  const black = full ? 0 : 16;
  const redOfRed = whole(2 * (1 - kr) * reach);
  const greenOfBlue = whole(((2 * kb * (1 - kb)) / kg) * reach);
  const greenOfRed = whole(((2 * kr * (1 - kr)) / kg) * reach);
  const blueOfBlue = whole(2 * (1 - kb) * reach);
  const { width, height } = bright;
  // Values beyond 0 to 255 are clamped by the array itself.
  const rgb = new Uint8ClampedArray(3 * width * height);
  let from = 0;
  let to = 0;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const place = (y >> down) * blue.width + (x >> across);
      const light = (bright.values[from++]! - black) * gain + 0x8000;
      const u = blue.values[place]! - 128;
      const v = red.values[place]! - 128;
      rgb[to++] = (light + v * redOfRed) >> 16;
      rgb[to++] = (light - u * greenOfBlue - v * greenOfRed) >> 16;
      rgb[to++] = (light + u * blueOfBlue) >> 16;
    }
  }
  return { rgb: new Uint8Array(rgb.buffer), width, height };
}

function whole(value: number): number {
  return Math.floor(value * 0x10000 + 0.5);
}

/** Turns a picture clockwise. */
function turned(picture: Pixels, degrees: number): Pixels {
  const { rgb: from, width, height } = picture;
  if (!degrees) return picture;
  const to = new Uint8Array(from.length);
  const [wide, high] = degrees === 180 ? [width, height] : [height, width];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const [row, column] =
        degrees === 90
          ? [x, height - 1 - y]
          : degrees === 180
            ? [height - 1 - y, width - 1 - x]
            : [width - 1 - x, y];
      const place = 3 * (row * wide + column);
      const source = 3 * (y * width + x);
      to[place] = from[source]!;
      to[place + 1] = from[source + 1]!;
      to[place + 2] = from[source + 2]!;
    }
  }
  return { rgb: to, width: wide, height: high };
}

function small(width: number, height: number): void {
  if (width * height > MOST_PIXELS) {
    throw large(
      `the video has ${width} x ${height} pixels a frame; at most ${MOST_PIXELS} are allowed`,
    );
  }
  sides("video", width, height);
}

function refused(error: unknown, media: string): TriviumError {
  if (error instanceof TriviumError) return error;
  return bad(`the ${media} is damaged or not readable: ${text(error)}`);
}

function long(seconds: number): TriviumError {
  const said = `the video lasts ${seconds.toFixed(0)} seconds`;
  return large(`${said}; at most ${MOST_SECONDS} are allowed`);
}

function bad(message: string): TriviumError {
  return new TriviumError("bad_input", message);
}

function large(message: string): TriviumError {
  return new TriviumError("too_large", message);
}
