// How do pieces of a recording look along its sound, and where can one hear them?

import { address, draw, make } from "./elements";

export interface Segment {
  start: number;
  end: number;
  score: number;
  text?: string;
}

const COLUMNS = 600;

interface Sound {
  seconds: number;
  peaks: number[];
}

const sounds = new WeakMap<Blob, Promise<Sound>>();

/** Draws the sound, marks the pieces, and lists them; a click plays from there. */
export function heard(pieces: readonly Segment[], sound: Blob | null): HTMLElement[] {
  const wave = make("div", { className: "wave" });
  const list = make("ol", { className: "pieces" });
  const player = make("audio", { controls: true, src: sound ? address(sound) : "" });
  for (const { start, end, score, text } of pieces) {
    const said = text?.trim() || `somebody speaks, ${(100 * score).toFixed(0)} %`;
    const onclick = (): void => {
      player.currentTime = start;
      void player.play();
    };
    const button = make("button", { type: "button", onclick }, `${clock(start)} – ${clock(end)}`);
    list.append(make("li", {}, button, ` ${said}`));
  }
  if (sound) void fill(wave, pieces, sound);
  const none = make("p", {}, "Nobody speaks.");
  return [wave, ...(sound ? [player] : []), pieces.length ? list : none];
}

async function fill(wave: HTMLElement, pieces: readonly Segment[], sound: Blob): Promise<void> {
  const known = sounds.get(sound) ?? look(sound);
  sounds.set(sound, known);
  const { seconds, peaks } = await known.catch(() => ({ seconds: 0, peaks: [] }));
  if (!seconds) return;
  const marks = pieces.map(({ start, end, text }) => {
    const mark = make("i", { title: text?.trim() || `${clock(start)} – ${clock(end)}` });
    mark.style.left = `${(100 * start) / seconds}%`;
    mark.style.width = `${(100 * (end - start)) / seconds}%`;
    return mark;
  });
  const most = Math.max(...peaks) || 1;
  const d = peaks
    .map((peak, x) => `M${x} ${(50 - (48 * peak) / most).toFixed(1)}V${(50 + (48 * peak) / most).toFixed(1)}`)
    .join("");
  const said = `${seconds.toFixed(1)} seconds of sound, ${pieces.length} pieces marked`;
  const picture = draw(
    "svg",
    { viewBox: `0 0 ${COLUMNS} 100`, preserveAspectRatio: "none", role: "img", "aria-label": said },
    draw("path", { d }),
  );
  wave.replaceChildren(...marks, picture);
}

/** Decodes a sound as far as it is needed to be looked at. */
async function look(sound: Blob): Promise<Sound> {
  const context = new OfflineAudioContext(1, 1, 16_000);
  const decoded = await context.decodeAudioData(await sound.arrayBuffer());
  const samples = decoded.getChannelData(0);
  const step = Math.max(1, samples.length / COLUMNS);
  const peaks = Array.from({ length: Math.floor(samples.length / step) }, (_, column) => {
    const piece = samples.subarray(Math.floor(column * step), Math.floor((column + 1) * step));
    return piece.reduce((peak, each) => Math.max(peak, Math.abs(each)), 0);
  });
  return { seconds: decoded.duration, peaks };
}

/** Minutes and seconds. */
export function clock(seconds: number): string {
  const minutes = Math.floor(seconds / 60);
  return `${minutes}:${(seconds - 60 * minutes).toFixed(1).padStart(4, "0")}`;
}
