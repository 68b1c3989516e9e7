# ruff: noqa: E501
"""JavaScript that tries to wear out the machine, and JavaScript that tries to get out."""

from __future__ import annotations

import itertools

_SPIN = {
    "a loop": "while (true);",
    "a loop that catches": "while (true) try { while (true); } catch {}",
    "a loop with a finally": "try { while (true); } finally { while (true); }",
    "a labelled loop": "a: while (true) { b: while (true) continue a; }",
    "microtasks": "while (true) await 0;",
    "microtasks of its own": "const f = () => Promise.resolve().then(f); f(); await new Promise(() => {});",
    "a thenable": "await {then(f) { f({then: this.then}); }};",
    "an async generator": "async function* g() { while (true) yield 0; } for await (const x of g());",
    "a generator": "function* g() { while (true) yield 0; } for (const x of g());",
    "a getter": "const a = {get b() { return this.b2 ?? (() => { while (true); })(); }}; return a.b;",
    "a proxy": "const p = new Proxy({}, {get: (t, k, r) => { while (true); }}); return p.x;",
    "toJSON": "return {toJSON() { while (true); }};",
    "toString of an error": "throw new (class extends Error { get message() { while (true); } })();",
    "a thrown toString": "throw {toJSON() { while (true); }};",
    "valueOf": "return 1 + {valueOf() { while (true); }};",
    "a sort": "return [].sort.call({length: 2 ** 53 - 1});",
    "a join": "return [].join.call({length: 2 ** 53 - 1}).length;",
    "an indexOf": "return [].indexOf.call({length: 2 ** 53 - 1}, 1);",
    "a reverse": "return [].reverse.call({length: 2 ** 53 - 1});",
    "an every": "return [].every.call({length: 2 ** 53 - 1}, () => true);",
    "a comparison": "return [1, 2, 3].sort(() => { while (true); });",
    "a backtracking expression": "return /^(a+)+$/.test('a'.repeat(60) + '!');",
    "another backtracking expression": "return /(a|a)*$/.test('a'.repeat(60) + '!');",
    "a replacement": "return 'a'.repeat(9e6).replace(/a*?b/g, 'c').length;",
    "a big power": "return String(3n ** 9_000_000n).length;",
    "a parse": "return JSON.parse('[' + '1,'.repeat(4e6) + '1]').length + JSON.parse('x');",
    "a wait": "Atomics.wait(new Int32Array(new SharedArrayBuffer(8)), 0, 0); while (true);",
    "a date": "while (Date.now());",
    "a random search": "while (Math.random() < 2);",
    "code made of text": "new Function('while (true);')();",
    "an eval": "eval('while (true);');",
    "a constructor": "new (class { constructor() { while (true); } })();",
    "a static block": "class A { static { while (true); } }",
    "a tagged template": "((s) => { while (true); })`x`;",
    "a spread": "Math.max(...{*[Symbol.iterator]() { while (true) yield 1; }});",
    "a destructuring": "const [...a] = {*[Symbol.iterator]() { while (true) yield 1; }};",
    "a finaliser": "new FinalizationRegistry(() => {}); while (true) new WeakRef({});",
    "a weak map": "const m = new WeakMap(); while (true) m.set({}, {});",
}
_FILL = {
    "objects": "const a = []; while (true) a.push({a: 1, b: [2]});",
    "buffers": "const a = []; while (true) a.push(new ArrayBuffer(%d));",
    "filled buffers": "const a = []; while (true) a.push(new Uint8Array(%d).fill(1));",
    "texts": "let s = 'x'; while (true) s += s;",
    "distinct texts": "const a = []; for (let i = 0; ; i++) a.push('x'.repeat(%d) + i);",
    "numbers": "const a = []; while (true) a.push(10n ** BigInt(%d));",
    "a map": "const m = new Map(); for (let i = 0; ; i++) m.set(i, {i});",
    "a set": "const m = new Set(); for (let i = 0; ; i++) m.add('k' + i);",
    "properties": "const o = {}; for (let i = 0; ; i++) o['k' + i] = i;",
    "closures": "let f = () => 0; while (true) { const g = f; f = () => g(); }",
    "promises": "const a = []; while (true) a.push(new Promise(() => {}));",
    "functions": "const a = []; for (let i = 0; ; i++) a.push(new Function('return ' + i));",
    "symbols": "const a = []; for (let i = 0; ; i++) a.push(Symbol.for('s' + i));",
    "expressions": "const a = []; for (let i = 0; ; i++) a.push(new RegExp('(x' + i + '){1,99}'));",
    "nested arrays": "let a = []; while (true) a = [a, a];",
    "catching objects": "const a = []; while (true) try { a.push(new Array(%d).fill({})); } catch {}",
    "a wide array": "return new Array(%d).fill(0).map((_, i) => [i]).length + new Array(2 ** 32 - 1).fill(1);",
    "a growing array": "const a = [1]; while (true) a.push(...a);",
    "a long join": "const a = new Array(%d).fill('xxxxxxxx'); while (true) a.push(a.join());",
    "a padded text": "return 'x'.padEnd(2 ** 30 - 25, 'y').split('').length;",
    "a repeated text": "return 'x'.repeat(2 ** 29).split('').map((x) => x + x).length;",
}
_DEEP = {
    "recursion": "function f(n) { return 1 + f(n + 1); } return f(0);",
    "mutual recursion": "const f = () => g(), g = () => f(); f();",
    "recursion that catches": "function f() { try { f(); } finally { f(); } } f();",
    "a nested parse": "return JSON.parse('['.repeat(%d) + ']'.repeat(%d));",
    "a nested source": "return eval('('.repeat(%d) + ')'.repeat(%d));",
    "a nested expression": "return new RegExp('('.repeat(%d) + ')'.repeat(%d)).test('');",
    "a nested output": "let a = 1; for (let i = 0; i < %d; i++) a = [a]; return a;",
    "a chain of prototypes": "let a = {}; for (let i = 0; i < %d; i++) a = Object.create(a); return a.x;",
    "a nested proxy": "let p = {}; for (let i = 0; i < %d; i++) p = new Proxy(p, {}); return p.x;",
    "a nested bind": "let f = () => 1; for (let i = 0; i < %d; i++) f = f.bind(); return f();",
    "a nested toString": "let a = []; for (let i = 0; i < %d; i++) a = [a]; return String(a);",
}
_FLOOD = {
    "lines": "while (true) console.log('x');",
    "long lines": "const s = 'x'.repeat(%d); while (true) console.log(s);",
    "many values": "while (true) console.log(...new Array(1000).fill('x'));",
    "errors": "while (true) console.error(new Error('x'));",
    "large output": "return 'x'.repeat(%d * 20);",
    "large output in parts": "return new Array(%d).fill('x'.repeat(1000));",
    "a large error": "throw new Error('x'.repeat(%d * 10));",
    "a large thrown value": "throw new Array(%d).fill('x'.repeat(100));",
}
_SIZES = (1 << 10, 1 << 16, 1 << 20)


def plain_bombs() -> dict[str, str]:
    """Those that are not wrapped in more."""
    found = {f"spins: {name}": code for name, code in _SPIN.items()}
    for kind, codes in (("fills", _FILL), ("nests", _DEEP), ("floods", _FLOOD)):
        for name, code in codes.items():
            for size in _SIZES if "%d" in code else (0,):
                text = code.replace("%d", str(size))
                found[f"{kind}: {name} {size or ''}".strip()] = text
    return found


def bombs() -> dict[str, str]:
    """Two hundred of them."""
    found = plain_bombs()
    wraps = {
        "in a promise": "await Promise.all([(async () => {{ {} }})()]);",
        "in a thread of tasks": "await Promise.resolve().then(async () => {{ {} }});",
        "after a line": "console.log('on it'); {}",
    }
    for (wrap, text), (name, code) in itertools.product(wraps.items(), list(found.items())):
        if len(found) < 200:
            found[f"{name}, {wrap}"] = text.format(code)
    return found


_WAYS = """
globalThis
this
(0, eval)('this')
Function('return this')()
(() => {}).constructor('return this')()
(async () => {}).constructor('return this')()
(function* () {}).constructor('return this')().next().value
[].constructor.constructor('return this')()
({}).constructor.constructor('return this')()
''['constructor']['constructor']('return this')()
(1).constructor.constructor('return this')()
Reflect.construct(Function, ['return this'])()
Reflect.apply(Function, null, ['return this'])()
Object.getPrototypeOf(async function () {}).constructor('return this')()
Object.getPrototypeOf(console.log).constructor('return this')()
console.log.constructor('return this')()
console.constructor.constructor('return this')()
input.constructor.constructor('return this')()
new Proxy(globalThis, {})
Object.create(globalThis)
Object.getOwnPropertyDescriptors(globalThis)
Object.assign(Object.create(null), globalThis)
(() => { try { null.x } catch (e) { return e.constructor.constructor('return this')() } })()
(() => { try { (function f() { f() })() } catch (e) { return e.constructor.constructor('return this')() } })()
(() => { const o = {}; o.__proto__.got = globalThis; return o.got })()
Array.from({length: 1}, function () { return this ?? globalThis })[0]
[1].map(function () { return this }, globalThis)[0]
(class { static x = Function('return this')() }).x
((a = Function('return this')()) => a)()
new (Function.prototype.bind.call(Function, null, 'return this'))()()
Symbol.constructor.constructor('return this')()
(await (async () => globalThis)())
JSON.parse.constructor('return this')()
Promise.constructor('return this')()
arguments.callee?.constructor('return this')() ?? globalThis
""".strip().splitlines()
_WANTS = """
g.require('fs').readFileSync(input.file, 'utf8')
g.process.env
g.process.mainModule.require('child_process').execSync('cat ' + input.file).toString()
g.process.binding('fs').open(input.file)
g.process.kill(input.runner, 'SIGUSR1')
g.module.constructor._load('fs').readFileSync(input.file)
g.std.loadFile(input.file)
g.std.open(input.file, 'r').readAsString()
g.std.getenv('PATH')
g.std.popen('cat ' + input.file, 'r').readAsString()
g.os.open(input.file, 0)
g.os.exec(['cat', input.file])
g.os.readdir(input.folder)[0].join()
g.os.remove(input.victim)
g.loadFile(input.file)
g.read(input.file)
g.readline()
g.load(input.file)
g.print(input.file)
g.quit()
g.Deno.readTextFileSync(input.file)
g.Deno.env.toObject()
g.Bun.file(input.file).text()
g.fetch('http://127.0.0.1:' + input.tcp)
new g.XMLHttpRequest().open('GET', 'http://127.0.0.1:' + input.tcp)
new g.WebSocket('ws://127.0.0.1:' + input.tcp)
g.importScripts('http://127.0.0.1:' + input.tcp)
new g.Worker('data:,')
await g.eval("import('fs')")
await g.eval("import('std')")
await g.eval("import('" + input.file + "')")
g.tell('done', 'x')
g.WebAssembly.compile(new Uint8Array(8))
g.java.lang.System.getenv()
g.Java.type('java.lang.System').getenv()
g.__proto__.polluted = 1
g.Error.prepareStackTrace = (e, s) => s.map((f) => f.getThis()); new g.Error().stack
g.open(input.file)
g.input.constructor.constructor('return require')()('fs')
""".strip().splitlines()


def escapes() -> list[str]:
    """More than a thousand ways to ask for what there is not."""
    return [
        f"const g = {way}; return String({want}) + JSON.stringify({want});"
        if ";" not in want and "await" not in want
        else f"const g = {way}; return String(await (async () => {{ return {want} }})());"
        for way, want in itertools.product(_WAYS, _WANTS)
    ]
