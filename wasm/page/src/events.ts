// How are server-sent events read from a reply?

/** Yields what the events of a reply say, each of one line of JSON, until it ends. */
export async function* events<T>(response: Response): AsyncGenerator<T> {
  const decoder = new TextDecoder();
  const reader = response.body?.getReader();
  let rest = "";
  for (let each = await reader?.read(); each?.value; each = await reader?.read()) {
    const cut = (rest + decoder.decode(each.value, { stream: true })).split("\n\n");
    rest = cut.pop() ?? "";
    for (const event of cut) {
      const data = /^data: (.*)$/m.exec(event)?.[1];
      if (data !== undefined) yield JSON.parse(data) as T;
    }
  }
}
