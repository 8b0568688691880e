// Every operation of the API, as a front end would call it.  Compiled, not run.
import createClient from "openapi-fetch";
import type { components, paths } from "./schema";

type Job = components["schemas"]["JobDocument"];
type Spec = components["schemas"]["JobSpec"];
type Problem = components["schemas"]["ProblemDocument"];

const client = createClient<paths>({
  baseUrl: "http://127.0.0.1:8000",
  headers: { Authorization: "Bearer secret", "X-User": "ada" },
});

function refused(problem: Problem): Error {
  const fields = problem.errors.map((one) => `${one.field}: ${one.message}`);
  return new Error([problem.code, problem.detail, ...fields].join("\n"));
}

export async function submit(spec: Spec, key: string): Promise<Job> {
  const { data, error } = await client.POST("/api/training", {
    body: spec,
    params: { header: { "Idempotency-Key": key } },
  });
  if (error) throw refused(error);
  return data;
}

export async function submitAll(): Promise<string[]> {
  const { data, error } = await client.POST("/api/training/batch", {
    body: { jobs: [{ loop: "sft" }, { loop: "torch_ddp", resources: { num_ranks: 2 }, config: { steps: 10 } }] },
  });
  if (error) throw refused(error);
  return data.jobs.map((job) => job.job_id);
}

export async function plan(spec: Spec): Promise<string[]> {
  const { data, error } = await client.POST("/api/training/plan", { body: spec });
  if (error) throw refused(error);
  const starts: number | null | undefined = data.forecast?.starts_in_s;
  const bytes: number | undefined = data.memory?.total_bytes;
  return [data.message, `${data.valid} ${data.fits} ${starts} ${bytes}`, ...data.errors.map((one) => one.field)];
}

export async function list(): Promise<Job[]> {
  const all: Job[] = [];
  let cursor: string | null = null;
  do {
    const { data, error }: Awaited<ReturnType<typeof page>> = await page(cursor);
    if (error) throw refused(error);
    all.push(...data.jobs);
    cursor = data.next_cursor;
  } while (cursor !== null);
  return all;
}

function page(cursor: string | null) {
  return client.GET("/api/training/jobs", {
    params: { query: { status: "running,queued", user: "ada", search: "qa", sort: "-submitted", limit: 100, cursor } },
  });
}

export async function look(job_id: string): Promise<(string | number | null)[]> {
  const params = { path: { job_id } };
  const job = (await client.GET("/api/training/status/{job_id}", { params })).data;
  const why = (await client.GET("/api/training/{job_id}/explain", { params })).data;
  const events = (await client.GET("/api/training/{job_id}/events", { params })).data;
  const attempts = (await client.GET("/api/training/{job_id}/attempts", { params })).data;
  const checkpoints = (await client.GET("/api/training/{job_id}/checkpoints", { params })).data;
  const metrics = (
    await client.GET("/api/training/{job_id}/metrics", { params: { ...params, query: { points: 500 } } })
  ).data;
  const log = (await client.GET("/api/training/{job_id}/logs", { params: { ...params, query: { rank: 0, offset: -4096 } } })).data;
  const effect = (
    await client.GET("/api/training/{job_id}/effect", { params: { ...params, query: { action: "resume", checkpoint: "2.3" } } })
  ).data;
  return [
    job?.reason.message ?? null,
    job?.queue_position ?? null,
    why?.next_steps[0]?.command ?? null,
    events?.events[0]?.at ?? null,
    attempts?.attempts[0]?.ending ?? null,
    checkpoints?.checkpoints[0]?.loss ?? null,
    metrics?.series["loss"]?.[0] ?? null,
    log?.text ?? null,
    effect?.allowed ? effect.message : (effect?.remedy ?? null),
  ];
}

export async function act(job_id: string): Promise<Job["status"][]> {
  const params = { path: { job_id } };
  const answers = [
    await client.POST("/api/training/{job_id}/pause", { params }),
    await client.POST("/api/training/{job_id}/resume", { params: { ...params, query: { checkpoint: "1.2" } } }),
    await client.POST("/api/training/{job_id}/preempt", { params }),
    await client.POST("/api/training/{job_id}/restart", { params }),
    await client.POST("/api/training/{job_id}/cancel", { params }),
    await client.POST("/api/training/{job_id}/fail", { params }),
  ];
  const forced = await client.POST("/api/training/{job_id}/force-start", { params });
  return [...answers.flatMap(({ data }) => (data ? [data.status] : [])), ...(forced.data ? [forced.data.new_status] : [])];
}

export async function shutdown(): Promise<number> {
  const { data } = await client.POST("/api/training/shutdown", { params: { query: { save: true } } });
  return data?.running ?? 0;
}

export async function repairs(): Promise<string[]> {
  const dry = await client.POST("/api/training/reconcile", { params: { query: { dry_run: true } } });
  const done = await client.GET("/api/training/repairs", { params: { query: { limit: 10 } } });
  return [...(dry.data?.repairs ?? []), ...(done.data?.repairs ?? [])].map((repair) => repair.decided);
}

export async function projects(): Promise<string[]> {
  const changed = await client.PUT("/api/training/projects/{name}", { params: { path: { name: "vision" } }, body: { quota: 8, limit: null } });
  const back = await client.DELETE("/api/training/projects/{name}", { params: { path: { name: "speech" } } });
  const all = await client.GET("/api/training/projects");
  const found = [...(all.data?.projects ?? []), ...(changed.data ? [changed.data] : []), ...(back.data ? [back.data] : [])];
  return found.map((project) => `${project.name}: ${project.held} of ${project.limit ?? "all"}`);
}

export async function recurring(): Promise<string[]> {
  const spec = { loop: "sft", config: { model: "/models/tiny" } };
  const path = { params: { path: { name: "nightly" } } };
  const made = await client.PUT("/api/training/recurring/{name}", { ...path, body: { cron: "0 3 * * *", timezone: "Europe/Berlin", spec } });
  const paused = await client.PUT("/api/training/recurring/{name}", { ...path, body: { paused: true } });
  const one = await client.GET("/api/training/recurring/{name}", path);
  const all = await client.GET("/api/training/recurring");
  const gone = await client.DELETE("/api/training/recurring/{name}", path);
  const found = [made, paused, one].flatMap(({ data }) => (data ? [data] : [])).concat(all.data?.recurring_jobs ?? []);
  return found.map((job) => `${job.name}: next ${job.next_at ?? "never"}, ${job.last?.status ?? "no job yet"}, ${job.skipped?.code ?? gone.data?.existed}`);
}

export async function server(): Promise<string[]> {
  const loops = await client.GET("/api/training/loops");
  const health = await client.GET("/health");
  const nodes = (health.data?.nodes ?? []).flatMap((node) => node.held_by.map((holder) => `${node.name}: ${holder.name}`));
  return [...(loops.data?.loops.map((loop) => loop.name) ?? []), ...nodes];
}

// Streams come as text; the schema of each event's data is among the components.
type LogEvent =
  | { kind: "log"; data: components["schemas"]["LogLines"] }
  | { kind: "attempt"; data: components["schemas"]["AttemptNotice"] }
  | { kind: "waiting"; data: components["schemas"]["WaitNotice"] }
  | { kind: "doubt"; data: components["schemas"]["DoubtNotice"] }
  | { kind: "end"; data: components["schemas"]["EndNotice"] };

export function words(event: LogEvent): string {
  switch (event.kind) {
    case "log":
      return `${event.data.rank}: ${event.data.text}`;
    case "attempt":
      return `attempt ${event.data.attempt} ${event.data.state}`;
    case "waiting":
      return event.data.reason.message;
    case "doubt":
      return event.data.message ?? "it answers again";
    case "end":
      return `${event.data.over}: ${event.data.reason.message}`;
  }
}

export async function streams(job_id: string): Promise<(ReadableStream<Uint8Array> | null | undefined)[]> {
  const logs = await client.GET("/api/training/{job_id}/logs/stream", {
    params: { path: { job_id }, query: { rank: "0,1" } },
    parseAs: "stream",
  });
  const changes = await client.GET("/api/training/changes", { parseAs: "stream" });
  return [logs.data, changes.data];
}

export function changed(data: components["schemas"]["Changes"]): string[] {
  return data.missed ? ["load everything anew"] : data.jobs.map((job) => `${job.name} is ${job.status}`);
}

export async function hoursOf(project: string): Promise<number> {
  const found = await client.GET("/api/training/usage", {
    params: { query: { from: "2026-11-01", to: "2026-11-30", by: "project" } },
  });
  const row = found.data?.rows.find((one) => one.project === project);
  return row?.gpu_hours ?? 0;
}

export async function whatComes(jobId: string): Promise<string[]> {
  const queue = await client.GET("/api/training/queue");
  const entitled = queue.data?.projects.map((one) => `${one.name}: ${one.held} of ${one.entitled ?? "?"}`) ?? [];
  const whatIf = await client.GET("/api/training/{job_id}/what-if", {
    params: { path: { job_id: jobId }, query: { front: true } },
  });
  return [...entitled, ...(whatIf.data?.moved.map((row) => row.job_id) ?? [])];
}

export async function sweep(spec: Spec, key: string): Promise<string[]> {
  const { data, error } = await client.POST("/api/training/arrays", {
    body: { spec, parameters: { learning_rate: [1e-4, 3e-4], seed: [1, 2] }, at_most: 2 },
    params: { header: { "Idempotency-Key": key } },
  });
  if (error) throw refused(error);
  const path = { params: { path: { array_id: data.array_id } } };
  const array = await client.GET("/api/training/arrays/{array_id}", path);
  const best = array.data?.jobs.find((job) => job.index === array.data.best);
  const cancelled = await client.POST("/api/training/arrays/{array_id}/cancel", path);
  return [best?.name ?? "none yet", cancelled.data?.message ?? ""];
}

export async function badNodes(): Promise<string[]> {
  const all = await client.GET("/api/training/nodes");
  const set = await client.POST("/api/training/nodes/{node}/set-aside", {
    params: { path: { node: "10.0.0.7" }, query: { why: "a fan is loud" } },
  });
  const back = await client.POST("/api/training/nodes/{node}/allow", { params: { path: { node: "10.0.0.7" } } });
  const aside = (all.data?.nodes ?? []).filter((node) => node.set_aside).map((node) => node.name);
  return [...aside, set.data?.set_aside?.why ?? "", back.data?.name ?? ""];
}

export async function usageTable(): Promise<string> {
  const { data } = await client.GET("/api/training/usage.csv", { parseAs: "text" });
  return data ?? "";
}
