// Where this server is, as the browser sees it: a proxy may serve it below a path.

const here = new URL(import.meta.url).pathname;

export const base = here.slice(0, here.lastIndexOf("/static/"));
export const version = here.slice(base.length).split("/")[2];
