PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE IF NOT EXISTS "pairs" (
"query_id" TEXT,
  "query" TEXT,
  "docid" TEXT,
  "title" TEXT,
  "text" TEXT,
  "score" REAL
);
INSERT INTO pairs VALUES('q1','what is a panda?','d1','Panda',replace('A bear that says "hi", and\nlives in China; 熊猫','\n',char(10)),12.5);
INSERT INTO pairs VALUES('q1','what is a panda?','d2',NULL,'hi	there',11.0);
INSERT INTO pairs VALUES('q2','capital of "France"','d3','Paris','Paris, the capital',3.25);
INSERT INTO pairs VALUES('q2','capital of "France"','d4',NULL,'',0.5);
COMMIT;
