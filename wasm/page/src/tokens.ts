// How is a text cut into tokens, the same as on servers?

import { Tokenizer } from "@huggingface/tokenizers";

/** Cuts texts, and puts tokens together again. */
export interface Lines {
  /** Returns a text's ids, and a mask as long. */
  encode(line: string): { ids: number[]; mask: number[] };
  /** Returns the text of tokens, without special ones. */
  decode(ids: readonly number[]): string;
}

/** Returns what cuts a text as its `tokenizer.json` says. */
export function tokenizer(json: string): Lines {
  const parsed = JSON.parse(json, (key, value: unknown) => {
    if (key === "pretokenizers") return (value as Step[]).flatMap(cuts);
    if (key !== "pre_tokenizer" || !value) return value;
    const steps = cuts(value as Step);
    return steps.length > 1 ? { type: "Sequence", pretokenizers: steps } : steps[0];
  }) as { normalizer: Normalizer | null };
  const made = new Tokenizer(parsed, {});
  const prepare = parsed.normalizer?.type === "BertNormalizer" ? bert(parsed.normalizer) : null;
  return {
    encode: (line) => {
      const { ids, attention_mask: mask } = made.encode(prepare?.(line) ?? line);
      return { ids, mask };
    },
    decode: (ids) =>
      made.decode([...ids], { skip_special_tokens: true, clean_up_tokenization_spaces: false }),
  };
}

interface Step {
  type: string;
  individual_digits?: boolean;
  add_prefix_space?: boolean;
  use_regex?: boolean;
}

/** How bytes' pieces are parted before they are merged, with Unicode's white space. */
const PARTS =
  "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\p{White_Space}\\p{L}\\p{N}]+" +
  "|\\p{White_Space}+(?!\\P{White_Space})|\\p{White_Space}+";

/** Says a step so that the library does it as servers do. */
function cuts(step: Step): object[] {
  const split = (regex: string): object => {
    return { type: "Split", pattern: { Regex: regex }, behavior: "Isolated", invert: false };
  };
  // The library's own digits are fewer: ² and ½ are none to it.
  if (step.type === "Digits" && step.individual_digits) return [split("\\p{N}")];
  // White space is more to JavaScript: U+FEFF, too.
  if (step.type === "ByteLevel" && step.use_regex !== false && !step.add_prefix_space) {
    return [split(PARTS), { ...step, use_regex: false }];
  }
  return [step];
}

interface Normalizer {
  type: string;
  lowercase?: boolean;
  handle_chinese_chars?: boolean;
}

/** Ideographs beyond the first plane, which the library does not see as such. */
const IDEOGRAPHS =
  /[\u{20000}-\u{2a6df}\u{2a700}-\u{2b81f}\u{2b920}-\u{2ceaf}\u{2f800}-\u{2fa1f}]/gu;

/** Marks and signs of the first plane that are younger than Unicode 8: letters to servers. */
const YOUNG = new RegExp(
  [
    "[\\u061d\\u07fd\\u0890-\\u0891\\u0897-\\u089f\\u08ca-\\u08e2\\u09fd-\\u09fe\\u0a76\\u0afa-\\u0aff]",
    "[\\u0b55\\u0c04\\u0c3c\\u0c77\\u0c84\\u0d00\\u0d3b-\\u0d3c\\u0d81\\u0eba\\u0ece\\u180f]",
    "[\\u1885-\\u1886\\u1abf-\\u1add\\u1ae0-\\u1aeb\\u1b4e-\\u1b4f\\u1b7d-\\u1b7f\\u1df6-\\u1dfb]",
    "[\\u2e43-\\u2e4f\\u2e52-\\u2e5d\\ua82c\\ua8c5\\ua8ff\\ua9bd]",
  ].join("|"),
  "g",
);

/** Any letter that is in no vocabulary. */
const LETTER = "\ua66e";

/** Prepares a line so that the library, written on newer Unicode, cuts it as servers do. */
function bert({ lowercase, handle_chinese_chars: ideographs }: Normalizer): (line: string) => string {
  return (line) => {
    // Two characters that changed their class since: a sign to a symbol, a mark to a letter.
    let made = line.replace(YOUNG, LETTER).replace(/\u166d/g, "\u166e").replace(/\u1734/g, "");
    // Servers lower letter by letter, without Greek's other sigma at the end of a word.
    if (lowercase) made = made.replace(/\u03a3/g, "\u03c3");
    return ideographs ? made.replace(IDEOGRAPHS, " $& ") : made;
  };
}
