// graphile-worker's worker as a process, told what to do by the environment; one JSON document a line on standard
// output: the seconds from the start of the first job to the start of the last, then that all are finished. Without a
// number of jobs it runs until it is killed, and answers every word on standard input with how many it has done.

import { createInterface } from "node:readline";

import { Logger, run, runMigrations } from "graphile-worker";

const { BENCH_URL: connectionString, BENCH_TASK: task } = process.env;
const jobs = Number(process.env.BENCH_JOBS || Infinity);
const failing = Number(process.env.BENCH_FAILING || 0);
const concurrentJobs = Number(process.env.BENCH_SETTING);
const say = (words) => process.stdout.write(JSON.stringify(words) + "\n");
const logger = new Logger(() => () => {}); // a line per job would be part of the bill

const preset = {
  worker: {
    connectionString,
    concurrentJobs,
    maxPoolSize: 10,
    localQueue: { size: 500 },
    completeJobBatchDelay: 0,
    failJobBatchDelay: 0,
  },
};

if (jobs === 0) {
  await runMigrations({ logger, preset });
  say({ ready: true });
} else {
  let count = 0;
  let first = 0;
  let over;
  const done = new Promise((resolve) => (over = resolve));
  const noop = async (payload, helpers) => {
    first ||= performance.now();
    if (failing && payload.order_id % failing === 0 && helpers.job.attempts === 1) throw new Error("once");
    if (++count === jobs) over((performance.now() - first) / 1000);
  };
  createInterface({ input: process.stdin }).on("line", () => say({ done: count }));
  const runner = await run({ logger, preset, noHandleSignals: true, taskList: { [task]: noop } });
  say({ seconds: await done });
  await runner.stop();
  say({ done: true });
}
process.exit(0);
