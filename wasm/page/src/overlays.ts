// How do boxes, masks and lines of writing look over the picture they were found in?

import { address, make } from "./elements";

export interface Box {
  label: string;
  score: number;
  x: number;
  y: number;
  width: number;
  height: number;
}

export interface Mask {
  label: string;
  width: number;
  height: number;
  runs: number[];
}

export interface Sheet {
  page: number;
  text: string;
  lines: Box[];
  width: number;
  height: number;
}

/** Lays boxes over a picture, and lists them. */
export function boxed(boxes: readonly Box[], picture: Blob | null): HTMLElement[] {
  const found = boxes.map((box) => {
    const name = make("span", {}, `${box.label} ${percent(box.score)}`);
    return placed(box, hue(box.label), name);
  });
  const list = boxes.map(({ label, score }) => make("li", {}, `${label} ${percent(score)}`));
  return [
    over(picture, `${boxes.length} found`, ...found),
    list.length ? make("ol", { className: "quiet" }, ...list) : make("p", {}, "Nothing was found."),
  ];
}

/** Colours what masks cover of a picture. */
export function masked(masks: readonly Mask[], picture: Blob | null): HTMLElement[] {
  const layers = masks.map(({ label, width, height, runs }) => {
    const canvas = make("canvas", { className: "mask", width, height });
    const context = canvas.getContext("2d");
    if (!context) return canvas;
    context.fillStyle = `hsl(${hue(label)} 90% 50%)`;
    let at = 0;
    runs.forEach((run, i) => {
      for (let end = at + run; i % 2 && at < end; ) {
        const size = Math.min(end - at, width - (at % width));
        context.fillRect(at % width, Math.floor(at / width), size, 1);
        at += size;
      }
      if (i % 2 === 0) at += run;
    });
    return canvas;
  });
  const said = masks.map(({ label, width, height, runs }) => {
    const inside = runs.reduce((sum, run, i) => sum + (i % 2 ? run : 0), 0);
    return `${label} covers ${percent(inside / (width * height))}`;
  });
  const text = said.join(", ") || "Nothing is covered.";
  return [over(picture, text, ...layers), make("p", {}, text)];
}

/** Lays lines of writing over the pages they were read from, and gives the text. */
export function sheets(pages: readonly Sheet[], picture: Blob | null): HTMLElement[] {
  return pages.flatMap(({ page, text, lines, width, height }) => {
    if (!lines.length) return [make("pre", {}, text)];
    const whole = picture?.type.startsWith("image/") ? picture : null;
    const found = lines.map((line) => {
      const box = placed(line, 172, ...(whole ? [] : [make("span", {}, line.label)]));
      box.classList.add(whole ? "line" : "written");
      box.title = line.label;
      box.style.fontSize = `${70 * line.height}cqh`;
      return box;
    });
    const sheet = over(whole, `page ${page}, ${lines.length} lines`, ...found);
    if (!whole) {
      sheet.classList.add("sheet");
      sheet.style.aspectRatio = `${width} / ${height}`;
    }
    return [sheet, make("pre", {}, text)];
  });
}

function over(picture: Blob | null, said: string, ...layers: HTMLElement[]): HTMLElement {
  const shown = picture ? [make("img", { src: address(picture), alt: "what was asked about" })] : [];
  const element = make("div", { className: "over" }, ...shown, ...layers);
  element.setAttribute("role", "group");
  element.ariaLabel = said;
  return element;
}

function placed(box: Box, colour: number, ...children: HTMLElement[]): HTMLElement {
  const element = make("div", { className: "box" }, ...children);
  const { style } = element;
  style.setProperty("--hue", `${colour}`);
  style.left = `${100 * box.x}%`;
  style.top = `${100 * box.y}%`;
  style.width = `${100 * box.width}%`;
  style.height = `${100 * box.height}%`;
  return element;
}

function hue(label: string): number {
  return [...label].reduce((sum, letter) => (sum * 31 + letter.charCodeAt(0)) % 360, 172);
}

function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`;
}
