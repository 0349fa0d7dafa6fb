// What are a sound's samples? 16 kHz mono, as servers decode it.
//
// Uncompressed sound and FLAC differ from the servers' by less than 1e-5; what was compressed with
// loss as much as two decoders do. Loaded when the first sound comes.

import {
  ADTS,
  type AudioSample,
  AudioSampleSink,
  BufferSource,
  EncodedPacketSink,
  FLAC,
  Input,
  type InputFormat,
  type InputAudioTrack,
  MATROSKA,
  MP3,
  MP4,
  OGG,
  QTFF,
  WAVE,
  WEBM,
} from "mediabunny";
import { TriviumError, text } from "./faults";

const RATE = 16_000;
const MOST_BYTES = 32 << 20;
const MOST_SECONDS = 3600;
const LEAST_SECONDS = 0.05;
const LEAST_RATE = 4_000;
const MOST_RATE = 192_000;
const MOST_CHANNELS = 512;
/** What decoding may take in all: an hour of Opus takes 46 s on two slow cores. */
const WORK_SECONDS = 180;
/** Coded pieces that the fragments of an MP4 may state; each becomes an object when it is read. */
const MOST_PACKETS = 500_000;
/** How far a sound's times may be off before they are followed. */
const GAP_SECONDS = 0.05;

const MOOF = 0x6d6f6f66;
const TRAF = 0x74726166;
const TRUN = 0x7472756e;
const FMT = 0x666d7420;

const SLOW = `the audio takes more than ${WORK_SECONDS} s to decode: make it shorter`;

interface Form {
  formats: InputFormat[];
  /** Whether its head says how long it is: what ends much earlier was cut off. */
  states: boolean;
}

const WAVES: Form = { formats: [WAVE], states: false };
const MP3S: Form = { formats: [MP3], states: false };
const FLACS: Form = { formats: [FLAC], states: true };
const OGGS: Form = { formats: [OGG], states: false };
const MP4S: Form = { formats: [MP4, QTFF], states: true };

/** The media types that are taken, and as what each is read; `audio.py` has the same. */
const SOUNDS: Record<string, Form> = {
  "audio/wav": WAVES,
  "audio/x-wav": WAVES,
  "audio/wave": WAVES,
  "audio/vnd.wave": WAVES,
  "audio/mpeg": MP3S,
  "audio/mp3": MP3S,
  "audio/flac": FLACS,
  "audio/x-flac": FLACS,
  "audio/ogg": OGGS,
  "audio/opus": OGGS,
  "audio/mp4": MP4S,
  "audio/m4a": MP4S,
  "audio/x-m4a": MP4S,
  "audio/aac": { formats: [ADTS], states: false },
  "audio/webm": { formats: [WEBM, MATROSKA], states: true },
  // Of a video the sound is taken, from its first picture on.
  "video/mp4": { formats: [MP4, QTFF], states: true },
  "video/x-m4v": { formats: [MP4, QTFF], states: true },
  "video/quicktime": { formats: [MP4, QTFF], states: true },
  "video/webm": { formats: [WEBM, MATROSKA], states: true },
  "video/x-matroska": { formats: [WEBM, MATROSKA], states: true },
  "video/matroska": { formats: [WEBM, MATROSKA], states: true },
};

/** Decodes a sound within limits that hold while it is decoded. */
export async function sound(
  data: Uint8Array<ArrayBuffer>,
  media: string,
): Promise<Float32Array<ArrayBuffer>> {
  const form = SOUNDS[media];
  if (!form) throw bad(`media type '${media}' is not one of ${Object.keys(SOUNDS).join(", ")}`);
  if (!data.length) throw bad("the audio is empty");
  if (data.length > MOST_BYTES) {
    throw large(`the audio has ${data.length} bytes; at most ${MOST_BYTES} are allowed`);
  }
  if (form === WAVES) whole(data);
  packets(data, media);
  const input = new Input({ source: new BufferSource(data), formats: form.formats });
  try {
    return await decoded(input, form, media);
  } catch (error) {
    if (error instanceof TriviumError) throw error;
    throw bad(`the ${media} is damaged or not readable: ${text(error)}`);
  } finally {
    input.dispose();
  }
}

async function decoded(
  input: Input,
  form: Form,
  media: string,
): Promise<Float32Array<ArrayBuffer>> {
  if (!(await input.canRead())) throw bad(`the ${media} is damaged or not readable`);
  const track = (await input.getAudioTracks())[0];
  if (!track) throw bad("the file has no audio track");
  const film = media.startsWith("video/") ? (await input.getVideoTracks())[0] : null;
  const all = film
    ? await heard(track, await film.getFirstTimestamp())
    : await heard(track, null, form.states ? await input.getDurationFromMetadata([track]) : 0);
  if (all.length < LEAST_SECONDS * RATE) {
    throw bad(`the audio lasts ${all.length / RATE} seconds; at least ${LEAST_SECONDS} are needed`);
  }
  return all;
}

/**
 * Decodes a track; sample 0 is at `begin` seconds, where it is given: then there is silence where
 * the file's times leave out something. What ends much before the `stated` seconds was cut off.
 */
export async function heard(
  track: InputAudioTrack,
  begin: number | null,
  stated: number | null = 0,
): Promise<Float32Array<ArrayBuffer>> {
  const rate = await track.getSampleRate();
  allowed(rate);
  const length = stated ?? 0;
  if (length > MOST_SECONDS) throw long(length.toFixed(0));
  await brief(track);
  if (!(await track.canDecode())) {
    const codec = await track.getCodec();
    throw unsuited(`this browser can't decode ${codec ?? "this audio"}`);
  }
  const { parts, count } = await resampled(track, rate, begin);
  if (count < rate * (0.9 * length - 0.5)) {
    throw bad(
      `the audio ends after ${(count / rate).toFixed(1)} of the ${length.toFixed(1)} seconds ` +
        "its head states",
    );
  }
  const all = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** Refuses what decodes to too much by its packets, whatever the file's head and times say. */
async function brief(track: InputAudioTrack): Promise<void> {
  const sink = new EncodedPacketSink(track);
  const options = { metadataOnly: true };
  let seconds = 0;
  let packet = await sink.getFirstPacket(options);
  while (packet) {
    seconds += packet.duration;
    if (seconds > MOST_SECONDS + 1) throw long(`more than ${MOST_SECONDS}`);
    packet = await sink.getNextPacket(packet, options);
  }
}

async function resampled(
  track: InputAudioTrack,
  rate: number,
  begin: number | null,
): Promise<{ parts: Float32Array[]; count: number }> {
  const resampler = rate === RATE ? null : new Resampler(rate);
  const parts: Float32Array[] = [];
  let count = 0;
  const take = (part: Float32Array): void => {
    count += part.length;
    if (count > MOST_SECONDS * rate) throw long(`more than ${MOST_SECONDS}`);
    parts.push(resampler ? resampler.push(part) : part);
  };
  const samples = new AudioSampleSink(track).samples();
  const until = performance.now() + WORK_SECONDS * 1e3;
  try {
    for (;;) {
      const { value: sample, done } = await within(samples.next(), until, SLOW);
      if (done) break;
      try {
        if (sample.sampleRate !== rate) {
          throw bad(`the audio changes from ${rate} to ${sample.sampleRate} Hz midway`);
        }
        const late = Math.round((sample.timestamp - (begin ?? 0)) * rate) - count;
        if (begin !== null && (late > GAP_SECONDS * rate || !count)) {
          for (let left = late; left > 0; left -= rate) {
            take(new Float32Array(Math.min(left, rate)));
          }
        }
        // What came before the beginning is not heard: an encoder's run-up, say.
        take(mono(sample, begin ?? 0));
      } finally {
        sample.close();
      }
    }
  } finally {
    // Not awaited: it may wait for the very sample that never comes.
    void samples.return(undefined).catch(() => undefined);
  }
  if (resampler && count) parts.push(resampler.end());
  return { parts, count };
}

/** A file from which a server decodes the same samples. */
export function wav(samples: Float32Array): Uint8Array<ArrayBuffer> {
  const file = new Uint8Array(44 + samples.byteLength);
  const view = new DataView(file.buffer);
  const words = (at: number, word: string): void => {
    for (let i = 0; i < word.length; i++) file[at + i] = word.charCodeAt(i);
  };
  words(0, "RIFF");
  view.setUint32(4, 36 + samples.byteLength, true);
  words(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 3, true);
  view.setUint16(22, 1, true);
  view.setUint32(24, RATE, true);
  view.setUint32(28, 4 * RATE, true);
  view.setUint16(32, 4, true);
  view.setUint16(34, 32, true);
  words(36, "data");
  view.setUint32(40, samples.byteLength, true);
  file.set(new Uint8Array(samples.buffer, samples.byteOffset, samples.byteLength), 44);
  return file;
}

/** The mean of all channels, from `begin` seconds on. */
function mono(sample: AudioSample, begin: number): Float32Array {
  const { numberOfFrames: frames, numberOfChannels: channels } = sample;
  const before = Math.round((begin - sample.timestamp) * sample.sampleRate);
  const early = Math.min(frames, Math.max(0, before));
  const sum = new Float64Array(frames - early);
  const plane = new Float32Array(frames);
  for (let channel = 0; channel < channels; channel++) {
    sample.copyTo(plane, { planeIndex: channel, format: "f32-planar" });
    for (let i = 0; i < sum.length; i++) sum[i]! += plane[i + early]!;
  }
  // Broken floats would spread through every sample around them.
  return Float32Array.from(sum, (value) => (Number.isFinite(value) ? value / channels : 0));
}

/**
 * Resamples as FFmpeg does: a sinc of 32 zero crossings under a Kaiser window (beta 9), cut off at
 * 0.97 of the lower rate; before the beginning and after the end the sound is reflected.
 */
class Resampler {
  private readonly bank: Float64Array;
  private readonly phases: number;
  private readonly taps: number;
  /** Output `n` lies at the input's sample `n * down / up`. */
  private readonly up: number;
  private readonly down: number;
  /** Samples from place `first` on; those before 0 are reflections. */
  private held: Float32Array = new Float32Array(0);
  private first = 0;
  private next = 0;

  constructor(rate: number) {
    const shared = divisor(rate, RATE);
    this.up = RATE / shared;
    this.down = rate / shared;
    this.phases = Math.min(this.up, 1024);
    const factor = Math.min((RATE * 0.97) / rate, 1);
    const taps = Math.ceil(32 / factor);
    this.taps = taps + (taps % 2);
    this.bank = filters(this.phases, this.taps, factor);
  }

  push(part: Float32Array): Float32Array {
    const grown = new Float32Array(this.held.length + part.length);
    grown.set(this.held);
    grown.set(part, this.held.length);
    this.held = grown;
    if (!this.next && this.first === 0) {
      const centre = this.taps / 2 - 1;
      if (grown.length <= centre) return new Float32Array(0);
      const before = grown.slice(1, centre + 1).reverse();
      this.held = new Float32Array(centre + grown.length);
      this.held.set(before);
      this.held.set(grown, centre);
      this.first = -centre;
    }
    return this.run(Infinity);
  }

  end(): Float32Array {
    const size = this.first + this.held.length;
    const after = this.held.slice(-this.taps).reverse();
    const all = new Float32Array(this.held.length + after.length);
    all.set(this.held);
    all.set(after, this.held.length);
    this.held = all;
    return this.run(Math.ceil((size * this.up) / this.down));
  }

  /** What can be told from the samples held, before output `most`. */
  private run(most: number): Float32Array {
    const { bank, taps, up, down, phases } = this;
    const centre = taps / 2 - 1;
    // Output n needs the samples from floor(n * down / up) - centre on, `taps` of them.
    const last = this.first + this.held.length - taps + centre;
    const until = Math.max(this.next, Math.min(most, Math.floor(((last + 1) * up - 1) / down) + 1));
    const out = new Float32Array(until - this.next);
    for (let n = this.next; n < until; n++) {
      const place = n * down;
      const phase = ((place % up) / up) * phases;
      const row = Math.floor(phase);
      const share = phase - row;
      const from = Math.floor(place / up) - centre - this.first;
      let sum = 0;
      for (let i = 0, at = row * taps; i < taps; i++, at++) sum += bank[at]! * this.held[from + i]!;
      if (share) {
        let other = 0;
        for (let i = 0, at = (row + 1) * taps; i < taps; i++, at++) {
          other += bank[at]! * this.held[from + i]!;
        }
        sum += share * (other - sum);
      }
      out[n - this.next] = sum;
    }
    this.next = until;
    const keep = Math.floor((until * down) / up) - centre;
    const gone = Math.min(this.held.length, Math.max(0, keep - this.first));
    this.held = this.held.slice(gone);
    this.first += gone;
    return out;
  }
}

/** A filter for each phase between two samples, and the first once more. */
function filters(phases: number, taps: number, factor: number): Float64Array {
  const bank = new Float64Array((phases + 1) * taps);
  const centre = taps / 2 - 1;
  let norm = 0;
  for (let phase = 0; phase <= phases; phase++) {
    for (let i = 0; i < taps; i++) {
      const x = Math.PI * (i - centre - phase / phases) * factor;
      const w = (2 * x) / (factor * taps * Math.PI);
      const y = (x ? Math.sin(x) / x : 1) * bessel(9 * Math.sqrt(Math.max(1 - w * w, 0)));
      bank[phase * taps + i] = y;
      if (!phase) norm += y;
    }
  }
  return bank.map((value) => value / norm);
}

/** The modified Bessel function of the first kind, order 0. */
function bessel(x: number): number {
  let sum = 1;
  let term = 1;
  for (let k = 1; term > sum * 1e-17; k++) {
    term *= (x / 2 / k) ** 2;
    sum += term;
  }
  return sum;
}

function divisor(one: number, other: number): number {
  return other ? divisor(other, one % other) : one;
}

/** Refuses a WAV file whose head is wrong, or that ends before the data it states. */
function whole(data: Uint8Array): void {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  for (let at = 12; at + 8 <= data.length; ) {
    const size = view.getUint32(at + 4, true);
    if (view.getUint32(at) === FMT && at + 8 + size <= data.length && size >= 16) {
      const channels = view.getUint16(at + 10, true);
      if (!(channels >= 1 && channels <= MOST_CHANNELS)) {
        throw bad(`the audio has ${channels} channels; 1 to ${MOST_CHANNELS} are allowed`);
      }
      allowed(view.getUint32(at + 12, true));
    }
    if (view.getUint32(at) === 0x64617461) {
      // Who writes to a pipe knows no size, and states none or the largest.
      if (size < 0xffff_0000 && at + 8 + size > data.length) {
        throw bad(`the audio ends after ${data.length - at - 8} of the ${size} bytes it states`);
      }
      return;
    }
    at += 8 + size + (size % 2);
  }
}

/** Refuses an MP4 whose fragments state more packets than can be: they may do so in a few bytes. */
export function packets(data: Uint8Array, media: string): void {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  let count = 0;
  for (let at = 0; at + 16 <= data.length; ) {
    const size = view.getUint32(at);
    const name = view.getUint32(at + 4);
    if (name === TRUN) count += view.getUint32(at + 12);
    if (count > MOST_PACKETS) {
      throw large(`the ${media} states ${count} packets; at most ${MOST_PACKETS} are allowed`);
    }
    if (name === MOOF || name === TRAF) at += 8;
    else if (size === 1) at += Math.max(16, Number(view.getBigUint64(at + 8)));
    else if (size >= 8) at += size;
    else return;
  }
}

/** Waits for what a hostile file may never let come, until a time by `performance.now()`. */
export function within<T>(work: Promise<T>, until: number, said: string): Promise<T> {
  return new Promise((resolve, reject) => {
    const late = (): void => reject(large(said));
    const timer = setTimeout(late, Math.max(0, until - performance.now()));
    work.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}

function allowed(rate: number): void {
  if (!(rate >= LEAST_RATE && rate <= MOST_RATE)) {
    throw bad(
      `the audio has ${rate} samples a second; ${LEAST_RATE} to ${MOST_RATE} are allowed`,
    );
  }
}

function long(seconds: string): TriviumError {
  return large(`the audio lasts ${seconds} seconds; at most ${MOST_SECONDS} are allowed`);
}

/** What this page's browser can't, a server may; nothing is broken. */
export function unsuited(said: string): TriviumError {
  return new TriviumError("unsuited", `${said}; a server may: leave tiers and reach open`);
}

function bad(message: string): TriviumError {
  return new TriviumError("bad_input", message);
}

function large(message: string): TriviumError {
  return new TriviumError("too_large", message);
}
