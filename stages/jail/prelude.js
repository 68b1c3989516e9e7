// What a snippet finds around it: `input`, `console`, and the language. Nothing here reaches outside:
// `tell(kind, ...texts)` hands text to the process that the engine runs in.
((tell) => {
  "use strict";
  const AsyncFunction = (async () => {}).constructor;
  const { parse, stringify } = JSON;
  const text = String;
  const ErrorClass = Error;
  const { call } = Function.prototype;
  const wellFormed = call.bind(String.prototype.toWellFormed);
  const replaceAll = call.bind(String.prototype.replaceAll);

  // Half a character, or a NUL, is text here and nowhere else.
  const readable = (value) => replaceAll(wellFormed(text(value)), "\0", "\u2400");
  const shown = (value) => {
    try {
      if (value instanceof ErrorClass) return text(value.stack ? `${value}\n${value.stack}` : value);
      return typeof value === "object" ? stringify(value) : text(value);
    } catch {
      try {
        return text(value);
      } catch {
        return "[object]";
      }
    }
  };
  const write = (...values) => {
    let line = "";
    for (let i = 0; i < values.length; i++) line += (i ? " " : "") + shown(values[i]);
    tell("line", readable(line));
  };
  const console = {};
  for (const name of ["log", "info", "debug", "warn", "error", "trace"]) console[name] = write;
  Object.defineProperty(globalThis, "console", { value: console, writable: true, configurable: true });

  const failed = (kind, error) => {
    let name = "", message = "", stack = "";
    try {
      if (error instanceof ErrorClass) {
        name = readable(error.name);
        message = readable(error.message);
        stack = readable(error.stack);
      } else {
        message = readable(shown(error));
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
