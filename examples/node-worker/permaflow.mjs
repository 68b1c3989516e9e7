/**
 * A worker of Permaflow: takes the steps of one stage from NATS JetStream, does them, and tells the
 * inbox what came of them. The protocol is described in docs/reference/step-protocol.md.
 *
 *     const worker = await serve({
 *       url: process.env.PERMAFLOW_NATS_URL,
 *       stage: "node",
 *       types: { "text/shout": async (config, ctx) => ({ text: config.text.toUpperCase() }) },
 *     });
 *     await worker.stop();
 *
 * A type gives back its output. It throws `Retry` for a failure that may pass, `Reject` for one that
 * is final and `Park` for "not now"; `{ success: false, error }` is a failed step, too. Any other
 * exception is a bug and counts as a failure that may pass. A step may be done twice: `ctx.stepKey`
 * is the same for all its attempts, so give it to whatever must happen once. Work that holds the
 * event loop for more than a few seconds belongs in a worker thread, or it is taken for dead.
 */

import { randomUUID } from "node:crypto";

import { Decoder, Encoder } from "@msgpack/msgpack";
import { AckPolicy, jetstream, jetstreamManager } from "@nats-io/jetstream";
import { connect, nanos } from "@nats-io/transport-node";

const STEPS = "PF_STEPS";
const PARTITIONS = 16;
const ACK_WAIT = 5_000; // the server delivers again what is not heard of for so long
const BEAT_EVERY = 1_600;
const HELD_AFTER = 3_000; // a step that takes longer is told of, so that nobody thinks it lost
const HELD_EVERY = 5_000;
const DELIVERIES = 10; // a message that nobody survived so often is given up
const ELSEWHERE = 2_000; // until another worker is offered what we do not know
const GRACE = 8_000; // for open steps when the worker stops
const PULL = 10_000;
const AGAIN = 1_000;
const INLINE = 1_000_000; // bytes of an output that travels in a message
const DEPTH = 64;
const LINES = 200; // that a step may write; further ones are dropped
const LINE = 2_000; // characters of one
const CHARACTERS = 32_000; // of all

/** A failure that may pass. `after` is the least wait in seconds that the other side asked for. */
export class Retry extends Error {
  constructor(message, { code = "failed", after = null, details = null } = {}) {
    super(message);
    Object.assign(this, { code, after, details });
  }
}

/** A failure that further attempts would not change. */
export class Reject extends Error {
  constructor(message, { code = "rejected", details = null } = {}) {
    super(message);
    Object.assign(this, { code, details });
  }
}

/** Not now: the same attempt again in `after` seconds. */
export class Park extends Error {
  constructor(message, { after }) {
    super(message);
    this.after = after;
  }
}

/** An output that also names the way out of the step. */
export class Done {
  constructor(output, { port = null } = {}) {
    Object.assign(this, { output, port });
  }
}

/** Starts a worker. `types` maps names of task types to functions; `api` (`{ url, key }`) is the
 * gateway, which large configs are read from. */
export async function serve({ url, stage, types, concurrency = 16, api = null, log = console.error }) {
  const worker = new Worker(await open(url, stage), stage, types, api, log);
  await worker.start(concurrency);
  return worker;
}

async function open(url, stage) {
  const servers = url.split(",").map((each) => new URL(each.trim()));
  const { username, password } = servers[0];
  const login = password
    ? { user: decodeURIComponent(username), pass: decodeURIComponent(password) }
    : username
      ? { token: decodeURIComponent(username) }
      : {};
  return connect({
    servers: servers.map((each) => `${each.hostname}:${each.port || 4222}`),
    name: `permaflow worker ${stage}`,
    maxReconnectAttempts: -1,
    ...login,
  });
}

class Worker {
  constructor(connection, stage, types, api, log) {
    this.connection = connection;
    this.stage = stage;
    this.types = types;
    this.api = api;
    this.log = log;
    this.holder = randomUUID().replaceAll("-", "");
    this.steps = new Map(); // key of an attempt → what is known of it
    this.messages = new Map(); // message → beats
    this.stopping = false;
  }

  async start(concurrency) {
    this.manager = await jetstreamManager(this.connection);
    this.js = jetstream(this.connection);
    while (!(await this.#ensure())) await sleep(AGAIN);
    const consumer = await this.js.consumers.get(STEPS, `stage-${this.stage}`);
    this.cancels = this.connection.subscribe("pf.cancel", {
      callback: (error, message) => error ?? this.#cancel(message.data),
    });
    this.telling = setInterval(() => this.#tell(), 1_000);
    this.slots = Array.from({ length: concurrency }, () => this.#slot(consumer));
  }

  /** See that our queue is there: it is not before the pipeline first runs, and not after somebody
   * has wiped the server. Made just as the pipeline would; one that is there stays as it is. */
  async #ensure() {
    try {
      await this.manager.consumers.add(STEPS, {
        durable_name: `stage-${this.stage}`,
        ack_policy: AckPolicy.Explicit,
        ack_wait: nanos(ACK_WAIT),
        max_deliver: -1,
        max_ack_pending: 20_000,
        filter_subject: `pf.step.${this.stage}.*`,
      });
      return true;
    } catch (error) {
      this.log(`permaflow: the queue of ${this.stage} is not there: ${error.message}`);
      return false;
    }
  }

  /** Take no more steps, finish those that are open, give back what is not done in time. */
  async stop() {
    this.stopping = true;
    const deadline = Date.now() + GRACE;
    while (this.steps.size && Date.now() < deadline) await sleep(50);
    clearInterval(this.telling);
    this.cancels.unsubscribe();
    for (const message of this.messages.keys()) this.#giveBack(message);
    await this.connection.drain();
  }

  /** One message at a time, as long as the worker lives. */
  async #slot(consumer) {
    while (!this.stopping) {
      const asked = Date.now();
      let message = null;
      try {
        message = await consumer.next({ expires: PULL });
      } catch (error) {
        if (this.stopping || this.connection.isClosed()) return;
        this.log(`permaflow: ${error.message}`);
      }
      if (message === null) {
        // Nothing came in all that time, or there is nobody to ask.
        const early = Date.now() - asked < PULL / 2 && !this.stopping;
        if (early && !(await this.#ensure())) await sleep(AGAIN);
      } else if (this.stopping) {
        message.nak();
      } else {
        await this.#handle(message);
      }
    }
  }

  async #handle(message) {
    let org, steps, unfit;
    try {
      [[, org, steps], unfit] = readDispatches(message.data);
    } catch (error) {
      this.log(`permaflow: a message cannot be read: ${error.message}`);
      message.term();
      return;
    }
    const dispatches = steps.map((step) => new Dispatch(org, step));
    const deliveries = message.info.deliveryCount;
    if (dispatches.some((each) => !this.types[each.type]) && deliveries < DELIVERIES) {
      message.nak(ELSEWHERE);
      return;
    }
    if (unfit) for (const each of dispatches) each.unfit = unfit;
    this.messages.set(message, setInterval(() => message.working(), BEAT_EVERY));
    try {
      const results =
        deliveries < DELIVERIES
          ? await Promise.all(dispatches.map((each) => this.#step(each)))
          : await this.#giveUp(message, dispatches);
      await this.#report(org, results.filter((each) => each !== null));
      if (this.#forget(message)) message.ack();
    } catch (error) {
      this.log(`permaflow: results could not be told: ${error.message}`);
      this.#giveBack(message);
    }
  }

  /** No worker that had this message came back. One of its steps may be why: each gets a message of
   * its own, and a step that was alone has failed. */
  async #giveUp(message, dispatches) {
    if (dispatches.length === 1) {
      const said = "No worker that was given this step came back.";
      return [dispatches[0].failed("runner_lost", said, true)];
    }
    for (const each of dispatches) {
      await this.js.publish(message.subject, encode(["d", each.org, [each.raw]]));
    }
    return [];
  }

  /** The result of one step, or null if it is not wanted, or in work here already. */
  async #step(dispatch) {
    if (this.steps.has(dispatch.key)) return null;
    const control = new AbortController();
    const began = Date.now();
    const open = { dispatch, control, began, told: 0 };
    this.steps.set(dispatch.key, open);
    let timer;
    const late = new Promise((resolve) => {
      timer = setTimeout(() => {
        const said = `It took longer than its ${dispatch.timeout} seconds.`;
        control.abort(new Error(said));
        resolve(dispatch.failed("timeout", said, true, { timedOut: true }));
      }, Math.min(dispatch.timeout * 1000, 2 ** 31 - 1));
    });
    const cancelled = new Promise((resolve) => {
      control.signal.addEventListener("abort", () => open.unwanted && resolve(null));
    });
    try {
      return await Promise.race([late, cancelled, this.#attempt(dispatch, control.signal)]);
    } finally {
      clearTimeout(timer);
      this.steps.delete(dispatch.key);
      if (open.told) this.#say(dispatch.org, [], [dispatch.identity]);
    }
  }

  async #attempt(dispatch, signal) {
    const run = this.types[dispatch.type];
    if (dispatch.unfit) return dispatch.failed("invalid_config", dispatch.unfit, false);
    if (!run) return dispatch.failed("not_found", `${dispatch.type} is not served here.`, true);
    try {
      const config = dispatch.configRef ? await this.#fetch(dispatch) : dispatch.config;
      return dispatch.judged(await run(config, dispatch.context(signal)));
    } catch (error) {
      return dispatch.judgedError(error);
    }
  }

  /** A config that was too large for a message. */
  async #fetch(dispatch) {
    if (!this.api) throw new Reject("The config is large; the worker has no gateway to read it from.");
    const path = `/workflows/v1/runs/${dispatch.runId}/values/${dispatch.configRef}`;
    const headers = { authorization: `Bearer ${this.api.key}` };
    const answer = await fetch(new URL(path, this.api.url), { headers });
    if (!answer.ok) throw new Retry(`The gateway answered ${answer.status}.`, { code: "config" });
    return answer.json();
  }

  async #report(org, results) {
    const partitions = Map.groupBy?.(results, partitionOf) ?? grouped(results, partitionOf);
    for (const [partition, events] of partitions) {
      await this.js.publish(`pf.inbox.${partition}.${org}`, encode(["i", events]));
    }
  }

  #forget(message) {
    clearInterval(this.messages.get(message));
    return this.messages.delete(message);
  }

  #giveBack(message) {
    if (this.#forget(message)) message.nak(1_000);
  }

  #cancel(data) {
    for (const [runId, scope, node, attempt] of decode(data, "x")[1]) {
      const open = this.steps.get(keyOf(runId, scope, node, attempt));
      if (!open) continue;
      open.unwanted = true;
      open.control.abort(new Error("The step is no longer wanted."));
    }
  }

  /** Tell of what takes long, so that it is not taken for lost. */
  #tell() {
    const now = Date.now();
    const orgs = new Map();
    for (const open of this.steps.values()) {
      if (now - open.began < HELD_AFTER || now - open.told < HELD_EVERY) continue;
      open.told = now;
      const { dispatch } = open;
      const left = dispatch.timeout - (now - open.began) / 1000;
      const held = orgs.get(dispatch.org) ?? [];
      orgs.set(dispatch.org, [...held, [...dispatch.identity, left]]);
    }
    for (const [org, held] of orgs) this.#say(org, held, []);
  }

  #say(org, held, released) {
    if (this.connection.isClosed()) return;
    this.connection.publish("pf.held", encode(["h", this.holder, org, held, released]));
  }
}

/** One attempt of one step, as it came. */
class Dispatch {
  constructor(org, raw) {
    this.org = org;
    this.raw = raw;
    [this.runId, this.scope, this.node, this.attempt, this.type, this.config, this.timeout] = raw;
    this.configRef = raw[7] ?? null;
    this.visit = raw[9] ?? 0;
    this.lines = [];
    this.written = 0;
  }

  get identity() {
    return [this.runId, this.scope, this.node, this.attempt];
  }

  get told() {
    return this.lines.length ? this.lines : null;
  }

  get key() {
    return keyOf(...this.identity);
  }

  /** The arguments of a type: what it is told, and `log(line)`, which is kept with the step. */
  context(signal) {
    const visit = this.visit ? `@${this.visit}` : "";
    const stepKey = `${this.runId}:${this.scope}:${this.node}${visit}`;
    const { org, runId, scope, node, attempt, timeout } = this;
    const idempotencyKey = `${stepKey}:${attempt}`;
    const names = { org, runId, scope, node, attempt, visit: this.visit, timeout };
    const log = (line) => {
      const said = readable(line).slice(0, LINE);
      this.written += said.length;
      if (this.lines.length < LINES && this.written <= CHARACTERS) this.lines.push(said);
    };
    return { ...names, stepKey, idempotencyKey, signal, log };
  }

  /** What a type gave back, as a result. */
  judged(given) {
    const { output, port } = given instanceof Done ? given : new Done(given);
    if (!(given instanceof Done) && output?.success === false) {
      const message = typeof output.error === "string" ? output.error : "The step says that it failed.";
      return this.failed("step_failed", message, output.retryable !== false, { details: output });
    }
    const fault = faultOf(output ?? null);
    if (fault) return this.failed("bad_output", `The output cannot be carried: ${fault}`, false);
    const result = ["D", ...this.identity, output ?? null, port, null, this.told];
    const size = encode(result).byteLength;
    if (size > INLINE) {
      const said = `The output has ${size} bytes; at most ${INLINE} are allowed.`;
      return this.failed("limit_exceeded", said, false);
    }
    return result;
  }

  judgedError(error) {
    if (error instanceof Park) return ["P", ...this.identity, error.after, readable(error.message)];
    if (error instanceof Retry) {
      const { code, after, details } = error;
      return this.failed(code, error.message, true, { after, details });
    }
    if (error instanceof Reject) {
      return this.failed(error.code, error.message, false, { details: error.details });
    }
    const said = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
    return this.failed("crashed", said, true);
  }

  failed(code, message, retryable, { timedOut = false, after = null, details = null } = {}) {
    const told = faultOf(details) ? null : details;
    const said = [readable(code), readable(message), retryable, timedOut, after, told, this.told];
    return ["F", ...this.identity, ...said];
  }
}

function keyOf(runId, scope, node, attempt) {
  return JSON.stringify([runId, scope, node, attempt]);
}

/** The inbox that a run's events go to: by the last byte of its id. */
function partitionOf(event) {
  return parseInt(event[1].slice(-2), 16) % PARTITIONS;
}

function grouped(items, by) {
  const groups = new Map();
  for (const item of items) groups.set(by(item), [...(groups.get(by(item)) ?? []), item]);
  return groups;
}

/** Why a value cannot be carried through PostgreSQL and JSON, or "". */
function faultOf(value, depth = DEPTH) {
  switch (typeof value) {
    case "string":
      return value.includes("\0") ? "text must not hold NUL characters" : "";
    case "number":
      return Number.isFinite(value) ? "" : "a number must be finite";
    case "bigint":
      return value >= -(2n ** 63n) && value < 2n ** 64n ? "" : "an integer must fit into 64 bits";
    case "boolean":
    case "undefined":
      return "";
    case "object":
      break;
    default:
      return `a ${typeof value} has no place in JSON`;
  }
  if (value === null) return "";
  if (depth === 0) return "it is nested too deeply";
  const isPlain = Array.isArray(value) || [Object.prototype, null].includes(Object.getPrototypeOf(value));
  if (!isPlain) return `a ${value.constructor?.name ?? "thing"} has no place in JSON`;
  for (const [name, item] of Object.entries(value)) {
    const fault = faultOf(name) || faultOf(item, depth - 1);
    if (fault) return fault;
  }
  return "";
}

function readable(text) {
  return String(text).replaceAll("\0", "\uFFFD").slice(0, 4_000);
}

const encoder = new Encoder({ useBigInt64: true, ignoreUndefined: true });
const decoder = new Decoder({ useBigInt64: true });

function encode(value) {
  return encoder.encode(value);
}

/** A message of the kind that its tag says; larger integers than a number holds stay BigInt. */
function decode(data, tag) {
  const message = smaller(decoder.decode(data));
  if (!Array.isArray(message) || message[0] !== tag) throw new Error(`it is no ${tag}`);
  return message;
}

/** Dispatches, and why their configs cannot be used here, if that is so: the decoder refuses members
 * that are named `__proto__`, and then only what is around the configs is read. */
function readDispatches(data) {
  try {
    return [decode(data, "d"), ""];
  } catch {
    const forbidden = Buffer.from("\u00a9__proto__", "latin1");
    const copy = Buffer.from(data);
    for (let at = copy.indexOf(forbidden); at >= 0; at = copy.indexOf(forbidden, at + 1)) {
      copy.write("__other__", at + 1, "latin1");
    }
    return [decode(copy, "d"), "A member of the config is named __proto__, which is not allowed."];
  }
}

function smaller(value) {
  if (typeof value === "bigint") {
    return BigInt.asIntN(53, value) === value ? Number(value) : value;
  }
  if (Array.isArray(value)) return value.map(smaller);
  if (value !== null && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, smaller(item)]));
  }
  return value;
}

function sleep(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
