// What the page asks of the computer that serves it. The token is in the fragment, which browsers keep to themselves.

const token = () => location.hash.slice(1);

async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { ...options, headers: { "X-Mnx-Token": token() } });
  } catch {
    throw new Error("The computer does not answer any more: is mnx phone still running there?");
  }
  if (response.ok) return response;
  const told = await response.json().catch(() => ({ error: `status ${response.status}`, hint: "open the page again" }));
  throw new Error(`${told.error}: ${told.hint}.`);
}

export const job = async () => (await ask("/job.json")).json();
export const bytes = async (path) => new Uint8Array(await (await ask(path)).arrayBuffer());
export const blob = async (path) => (await ask(path)).blob();
export const post = async (path, document) => (await ask(path, { method: "POST", body: JSON.stringify(document) })).json();
