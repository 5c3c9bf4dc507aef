// Talking to the server: JSON, files, and events that go on where they broke off.
const token = new URLSearchParams(location.hash.slice(1)).get("token");
if (token) history.replaceState(null, "", location.pathname); // out of sight, and out of bookmarks

export class Refused extends Error {}

export async function call(path, { method = "GET", form = null, headers = {} } = {}) {
  const all = { ...headers, "X-Priorpaint": "1" };
  if (token) all.Authorization = `Bearer ${token}`;
  let answer;
  try {
    answer = await fetch(path, { method, headers: all, body: form && asForm(form) });
  } catch {
    throw new Refused("The server cannot be reached; see whether it still runs.");
  }
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => null);
  const words = told?.error ?? `the server answered ${answer.status}.`;
  throw new Refused(words[0].toUpperCase() + words.slice(1));
}

export const json = async (path, how) => (await call(path, how)).json();

function asForm(fields) {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) {
    if (value === null || value === undefined) continue;
    if (value instanceof File) form.append(name, value);
    else if (value instanceof Blob) form.append(name, value, `${name}.png`);
    else form.append(name, String(value));
  }
  return form;
}

// Events of a job, from its first one; a connection that breaks is made again behind the last number.
export async function listen(job, hear) {
  let last = 0;
  for (let failures = 0; failures < 8; ) {
    try {
      const answer = await call(`/api/jobs/${job}/events`, { headers: { "Last-Event-ID": String(last) } });
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = "";
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        text += value;
        const blocks = text.split("\n\n");
        text = blocks.pop();
        for (const block of blocks) {
          const data = block.split("\n").find((line) => line.startsWith("data: "));
          if (!data) continue;
          last = Number(block.match(/^id: (\d+)/m)[1]);
          failures = 0;
          const event = JSON.parse(data.slice(6));
          hear(event);
          if (event.event === "end" || event.event === "failed") return;
        }
      }
    } catch (error) {
      if (error instanceof Refused && !/reached/.test(error.message)) throw error;
    }
    failures += 1;
    await new Promise((go) => setTimeout(go, 500 * failures));
  }
  throw new Refused("The server cannot be reached; reload the page when it runs again.");
}
