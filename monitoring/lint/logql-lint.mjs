#!/usr/bin/env node
// Checks LogQL by Grafana's own grammar. It is given a JSON list of queries on stdin, and prints a list of
// what is wrong with each, null where nothing is:
//
//   $ echo '["{service_name=\"ranking\"} | json", "{service_name"]' | .tools/bin/logql-lint.mjs
//   [null,"SyntaxError: No parse at 13"]
//
// It knows the grammar alone: whether labels and fields exist, it cannot tell.
import { readFileSync } from "node:fs";
import { parser } from "@grafana/lezer-logql";

// By default the parser makes the best of what is wrong, as an editor wants it.
const strict = parser.configure({ strict: true });

function fault(query) {
  try {
    strict.parse(query);
    return null;
  } catch (error) {
    return String(error);
  }
}

console.log(JSON.stringify(JSON.parse(readFileSync(0, "utf8")).map(fault)));
