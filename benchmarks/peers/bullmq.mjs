// BullMQ as a process, told what to do by the environment, one JSON document a line on standard output.
//   BENCH_ROLE=work   run BENCH_JOBS jobs, BENCH_SETTING at once: the seconds from the start of the first job to that of
//                     the last, then that all are finished. Without a number of jobs it runs until it is killed, and
//                     answers every word on standard input with how many it has done, and how late they were.
//   BENCH_ROLE=bulk   store BENCH_JOBS jobs, 500 a call: the seconds.
//   BENCH_ROLE=single store them one by one, one every BENCH_PERIOD seconds if that is given: the seconds.

import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";

import { Queue, Worker } from "bullmq";
import { Redis } from "ioredis";

const { BENCH_URL: url, BENCH_TASK: task, BENCH_ROLE: role } = process.env;
const jobs = Number(process.env.BENCH_JOBS || Infinity);
const period = Number(process.env.BENCH_PERIOD || 0) * 1000;
const first = JSON.parse(process.env.BENCH_ARGUMENTS);
const connection = new Redis(url, { maxRetriesPerRequest: null });
const say = (words) => process.stdout.write(JSON.stringify(words) + "\n");
const now = () => Number(process.hrtime.bigint());
const data = (number) => ({ ...first, order_id: first.order_id + number });
const opts = { removeOnComplete: true };

async function work() {
  const late = [];
  let count = 0;
  let begin = 0;
  let over;
  const done = new Promise((resolve) => (over = resolve));
  const noop = async (job) => {
    begin ||= performance.now();
    if (jobs === Infinity) late.push(now() - job.data.order_id);
    if (++count === jobs) over((performance.now() - begin) / 1000);
  };
  const worker = new Worker("bench", noop, { connection, concurrency: Number(process.env.BENCH_SETTING) });
  createInterface({ input: process.stdin }).on("line", () => say({ done: count, late }));
  say({ seconds: await done });
  await worker.close();
  say({ done: true });
}

async function store(queue) {
  const start = performance.now();
  if (role === "bulk") {
    for (let at = 0; at < jobs; at += 500) {
      const numbers = Array.from({ length: Math.min(500, jobs - at) }, (_, number) => at + number);
      await queue.addBulk(numbers.map((number) => ({ name: task, data: data(number), opts })));
    }
  } else {
    for (let number = 0; number < jobs; number++) {
      const began = performance.now();
      await queue.add(task, period ? { ...first, order_id: now() } : data(number), opts);
      if (period) await sleep(Math.max(0, period - (performance.now() - began)));
    }
  }
  say({ seconds: (performance.now() - start) / 1000 });
  await queue.close();
}

await (role === "work" ? work() : store(new Queue("bench", { connection })));
process.exit(0);
