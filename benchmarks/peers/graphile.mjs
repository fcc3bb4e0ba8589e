// graphile-worker's worker as a process, told what to do by the environment; one JSON document a line on standard
// output: the seconds from the start of the first job to the start of the last, then that all are finished.

import { Logger, run, runMigrations } from "graphile-worker";

const { BENCH_URL: connectionString, BENCH_TASK: task } = process.env;
const jobs = Number(process.env.BENCH_JOBS);
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
  let left = jobs;
  let first = 0;
  let over;
  const done = new Promise((resolve) => (over = resolve));
  const noop = async () => {
    first ||= performance.now();
    if (--left === 0) over((performance.now() - first) / 1000);
  };
  const runner = await run({ logger, preset, noHandleSignals: true, taskList: { [task]: noop } });
  say({ seconds: await done });
  await runner.stop();
  say({ done: true });
}
process.exit(0);
