/** The worker of the tests: types that end in every way. Run beside a copy of permaflow.mjs. */

import { Done, Park, Reject, Retry, serve } from "./permaflow.mjs";

const tries = new Map();

const types = {
  "probe/echo": async (config, ctx) => ({ given: config, key: ctx.stepKey, attempt: ctx.attempt }),
  "probe/log": async (config, ctx) => {
    ctx.log("half way");
    return {};
  },
  "probe/port": async () => new Done({ here: true }, { port: "left" }),
  "probe/retry": async (config, ctx) => {
    if (ctx.attempt === 1) throw new Retry("not now", { code: "busy", details: { seen: 1 } });
    return { attempt: ctx.attempt };
  },
  "probe/reject": async () => {
    throw new Reject("never", { code: "refused" });
  },
  "probe/park": async (config, ctx) => {
    const seen = (tries.get(ctx.stepKey) ?? 0) + 1;
    tries.set(ctx.stepKey, seen);
    if (seen === 1) throw new Park("the door is closed", { after: 0.1 });
    return { seen };
  },
  "probe/unsuccessful": async () => ({ success: false, error: "no credit", retryable: false }),
  "probe/bug": async () => undefinedName,
  "probe/unfit": async () => ({ text: "a\0b" }),
  "probe/wait": async (config, ctx) => {
    console.log(`began ${ctx.node}`);
    await new Promise((resolve, reject) => {
      const timer = setTimeout(resolve, config.ms);
      ctx.signal.addEventListener("abort", () => {
        clearTimeout(timer);
        console.log(`aborted ${ctx.node}: ${ctx.signal.reason.message}`);
        reject(ctx.signal.reason);
      });
    });
    return { waited: config.ms };
  },
};

const { PERMAFLOW_NATS_URL, PERMAFLOW_API_URL, PERMAFLOW_API_KEY } = process.env;
const worker = await serve({
  url: PERMAFLOW_NATS_URL,
  api: PERMAFLOW_API_URL ? { url: PERMAFLOW_API_URL, key: PERMAFLOW_API_KEY } : null,
  stage: "node",
  types,
  concurrency: 4,
  log: (line) => console.log(line),
});
console.log("ready");
process.once("SIGTERM", async () => {
  await worker.stop();
  process.exit(0);
});
