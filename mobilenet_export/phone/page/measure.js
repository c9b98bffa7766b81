// Latency: files take turns in rounds, as `mnx bench` does it. A round in which the page was hidden, or in which the
// clock jumped because the phone slept, is measured again.

const WARM_UP_RUNS = 5, LONGEST_WARM_UP_MS = 2000, STABLE = 1.05;
const LONGEST_RACE_MS = 60000; // on a slow phone; every file has had the same number of rounds by then
const LONGEST_GAP_MS = 3000, MOST_REPEATS = 20;

const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];

export const breathe = () => new Promise((resolve) => setTimeout(resolve));

const visible = () =>
  new Promise((resolve) => {
    if (document.visibilityState === "visible") return resolve();
    const look = () => {
      if (document.visibilityState !== "visible") return;
      document.removeEventListener("visibilitychange", look);
      resolve();
    };
    document.addEventListener("visibilitychange", look);
  });

async function block(one, runs) {
  const samples = [];
  for (let index = 0; index < runs; index++) {
    const start = performance.now();
    await one.run();
    samples.push(performance.now() - start);
  }
  await breathe();
  return samples;
}

/** Run until it gets no faster. */
async function warmUp(one) {
  const end = performance.now() + LONGEST_WARM_UP_MS;
  await one.run();
  let before = median(await block(one, WARM_UP_RUNS));
  while (performance.now() < end) {
    const now = median(await block(one, WARM_UP_RUNS));
    if (before <= now * STABLE) return;
    before = now;
  }
}

function shuffle(order) {
  for (let index = order.length - 1; index > 0; index--) {
    const other = Math.floor(Math.random() * (index + 1));
    [order[index], order[other]] = [order[other], order[index]];
  }
}

/** Fill `rounds_ms` of every contestant {run, rounds_ms}; returns how many rounds had to be measured again. */
export async function race(contestants, plan, watch) {
  let hidden = 0, repeats = 0;
  const count = () => { if (document.visibilityState !== "visible") hidden++; };
  document.addEventListener("visibilitychange", count);
  try {
    for (const one of contestants) await warmUp(one);
    const order = [...contestants], end = performance.now() + LONGEST_RACE_MS;
    for (let round = 0; round < plan.rounds && (round === 0 || performance.now() < end); ) {
      await visible();
      const before = hidden, measured = new Map();
      shuffle(order);
      for (const one of order) {
        await one.run();
        measured.set(one, await block(one, plan.block));
      }
      const slept = [...measured.values()].flat().some((sample) => sample > LONGEST_GAP_MS);
      if ((hidden !== before || slept) && repeats < MOST_REPEATS) {
        repeats++;
        continue;
      }
      // Clocks of browsers are coarse, and a sample of 0 ms would be a fast phone's.
      for (const [one, samples] of measured) one.rounds_ms.push(samples.map((sample) => Math.max(sample, 0.001)));
      watch(++round / plan.rounds);
    }
  } finally {
    document.removeEventListener("visibilitychange", count);
  }
  return repeats;
}
