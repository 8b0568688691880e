-- From version 4: what projects may have, and notes of the policy.

CREATE TABLE projects (
    name TEXT PRIMARY KEY NOT NULL,
    doc  TEXT NOT NULL  -- its share; a project without a row has the default
);

CREATE TABLE notes (  -- small values of the policy, by name, that it finds again after a restart
    name TEXT PRIMARY KEY NOT NULL,
    doc  TEXT NOT NULL
);
