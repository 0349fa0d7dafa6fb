// How does a video's timeline look: what is seen and what is said, under a bar with times?

import { address, make } from "./elements";
import { clock } from "./waveform";

/** A piece in which what is seen and what is said stay the same. */
export interface Moment {
  start: number;
  end: number;
  seen: string;
  said: string;
}

export interface Timeline {
  summary: string;
  seconds: number;
  timeline: Moment[];
  speech: string;
}

/** Draws both rows along the video, and lists the pieces; a click plays from there. */
export function lined({ summary, seconds, timeline, speech }: Timeline, video: Blob | null): HTMLElement[] {
  const player = make("video", { controls: true, src: video ? address(video) : "" });
  const from = (start: number) => (): void => {
    player.currentTime = start;
    void player.play();
  };
  const bar = make("div", { className: "timeline" });
  for (const row of ["seen", "said"] as const) {
    const line = make("div", { className: row });
    for (const { start, end, text } of joined(timeline, row)) {
      if (!text) continue;
      const title = `${clock(start)} – ${clock(end)}: ${text}`;
      const piece = make("button", { type: "button", title, onclick: from(start) }, text);
      piece.style.left = `${(100 * start) / seconds}%`;
      piece.style.width = `${(100 * (end - start)) / seconds}%`;
      line.append(piece);
    }
    bar.append(line);
  }
  const list = make("ol", { className: "pieces" });
  for (const { start, end, seen, said } of timeline) {
    const times = `${clock(start)} – ${clock(end)}`;
    const button = make("button", { type: "button", onclick: from(start) }, times);
    list.append(make("li", {}, button, ` ${seen}`, ...(said ? [make("q", {}, said)] : [])));
  }
  return [
    make("p", { className: "said" }, summary),
    bar,
    ...(video ? [player] : []),
    list,
    make("p", { className: "quiet" }, `Speech: ${speech}.`),
  ];
}

/** Pieces of one row; neighbours that are the same are one. */
function joined(timeline: readonly Moment[], row: "seen" | "said"): { start: number; end: number; text: string }[] {
  const pieces: { start: number; end: number; text: string }[] = [];
  for (const { start, end, [row]: text } of timeline) {
    const last = pieces.at(-1);
    if (last?.text === text) last.end = end;
    else pieces.push({ start, end, text });
  }
  return pieces;
}
