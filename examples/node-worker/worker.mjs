/** Serves `intl/format`: amounts of money and moments, written as people of a language write them. */

import { Reject, serve } from "./permaflow.mjs";

function format({ value, kind, locale, currency, timeZone }) {
  try {
    if (kind === "money") {
      return new Intl.NumberFormat(locale, { style: "currency", currency }).format(value);
    }
    const options = { dateStyle: "long", timeStyle: "short", timeZone };
    return new Intl.DateTimeFormat(locale, options).format(new Date(value));
  } catch (error) {
    // An unknown currency, language or zone is a RangeError; so is a moment that is none.
    if (error instanceof RangeError) throw new Reject(error.message, { code: "bad_value" });
    throw error;
  }
}

const { PERMAFLOW_NATS_URL: url, PERMAFLOW_API_URL, PERMAFLOW_API_KEY } = process.env;
if (!url) {
  console.error("PERMAFLOW_NATS_URL is not set.");
  process.exit(1);
}
const worker = await serve({
  url,
  stage: "node",
  types: { "intl/format": async (config) => ({ text: format(config) }) },
  api: PERMAFLOW_API_URL ? { url: PERMAFLOW_API_URL, key: PERMAFLOW_API_KEY } : null,
});
console.log("ready");
for (const signal of ["SIGTERM", "SIGINT"]) {
  process.once(signal, async () => {
    await worker.stop();
    process.exit(0);
  });
}
