// Runs in Restate's own environment: `serve PORT` is the service, `load INGRESS RUNS STEPS SECONDS CHAINS
// CHAIN_STEPS IN_FLIGHT` drives it and prints one JSON line, as closed_loop.py does. A step is one journaled
// `ctx.run`; its value is the moment its body ran.
import http from "node:http";
import * as restate from "@restatedev/restate-sdk";

// The SDK wants Node 22; this is the only thing of it that it uses.
Promise.withResolvers ??= function withResolvers() {
  const parts = {};
  parts.promise = new this((resolve, reject) => Object.assign(parts, { resolve, reject }));
  return parts;
};

const nowNs = () => Number(process.hrtime.bigint());

function serve(port) {
  const chain = restate.service({
    name: "Chain",
    handlers: {
      run: async (ctx, steps) => {
        const at = [];
        for (let step = 0; step < steps; step += 1) at.push(await ctx.run("noop", nowNs));
        return at;
      },
    },
  });
  restate.serve({ services: [chain], port, logger: () => {} });
}

function caller(ingress, inFlight) {
  const agent = new http.Agent({ keepAlive: true, maxSockets: inFlight });
  const options = { agent, method: "POST", headers: { "content-type": "application/json" } };
  return (steps) =>
    new Promise((resolve, reject) => {
      const request = http.request(`${ingress}/Chain/run`, options, (response) => {
        let body = "";
        response.on("data", (chunk) => (body += chunk));
        response.on("end", () =>
          response.statusCode === 200
            ? resolve(JSON.parse(body))
            : reject(new Error(`the ingress answered ${response.statusCode}: ${body}`)),
        );
      });
      request.on("error", reject);
      request.end(String(steps));
    });
}

async function throughput(call, runs, steps, seconds, inFlight) {
  const began = nowNs();
  const until = began + seconds * 1e9;
  let left = runs;
  let completed = 0;
  let last = began;
  const one = async () => {
    while (left > 0 && nowNs() < until) {
      left -= 1;
      await call(steps);
      completed += 1;
      last = nowNs();
    }
  };
  await Promise.all(Array.from({ length: inFlight }, one));
  return { completed, seconds: (last - began) / 1e9 };
}

async function latency(call, chains, steps, seconds) {
  const until = nowNs() + seconds * 1e9;
  const starts = [];
  for (let chain = 0; chain < chains && nowNs() < until; chain += 1) starts.push(await call(steps));
  return starts;
}

async function load(ingress, ...numbers) {
  const [runs, steps, seconds, chains, chainSteps, inFlight] = numbers.map(Number);
  const call = caller(ingress, inFlight);
  await throughput(call, 50, steps, seconds / 6, inFlight); // warms everything up
  const loaded = await throughput(call, runs, steps, seconds, inFlight);
  await latency(call, 1, 20, seconds / 6);
  const starts = await latency(call, chains, chainSteps, seconds);
  process.stdout.write(`${JSON.stringify({ ...loaded, steps, starts_ns: starts })}\n`);
  process.exit(0);
}

const [role, ...rest] = process.argv.slice(2);
if (role === "serve") serve(Number(rest[0]));
else await load(...rest);
