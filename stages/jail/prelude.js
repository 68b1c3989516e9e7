// What a snippet finds around it: `input`, `console`, and the language. Nothing here reaches outside:
// `tell(kind, ...texts)` hands text to the process that the engine runs in.
((tell) => {
  "use strict";
  const AsyncFunction = (async () => {}).constructor;
  const { parse, stringify } = JSON;
  const text = String;
  const ErrorClass = Error;

  const shown = (value) => {
    if (typeof value === "string") return value;
    if (value instanceof ErrorClass) return text(value.stack ? `${value}\n${value.stack}` : value);
    try {
      return stringify(value) ?? text(value);
    } catch {
      return text(value);
    }
  };
  const write = (...values) => tell("line", values.map(shown).join(" "));
  const console = {};
  for (const name of ["log", "info", "debug", "warn", "error", "trace"]) console[name] = write;
  Object.defineProperty(globalThis, "console", { value: console, writable: true, configurable: true });

  const failed = (kind, error) => {
    let name = "", message = "", stack = "";
    try {
      if (error instanceof ErrorClass) {
        name = text(error.name);
        message = text(error.message);
        stack = text(error.stack);
      } else {
        message = shown(error);
      }
    } catch {
      message = "What was thrown cannot be shown.";
    }
    tell(kind, name, message, stack);
  };
  const done = (value) => {
    let json;
    try {
      json = value === undefined ? "null" : stringify(value);
    } catch (error) {
      return failed("bad_output", error);
    }
    if (typeof json !== "string") {
      return tell("bad_output", "TypeError", `a ${typeof value} cannot be written as JSON`, "");
    }
    tell("done", json);
  };

  return (code, given) => {
    let body;
    try {
      body = AsyncFunction("input", code);
    } catch (error) {
      return failed("syntax", error);
    }
    body(parse(given)).then(done, (error) => failed("thrown", error));
  };
})
