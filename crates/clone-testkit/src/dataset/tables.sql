-- SPDX-License-Identifier: GPL-2.0-only
-- Statements are separated by empty lines. Everything here is empty when it is created;
-- fill.sql is then run again and again until the data set has its size.
CREATE DATABASE shop;

CREATE DATABASE `odd name; with 'quotes' and spaces` CHARACTER SET latin1;

CREATE DATABASE `schéma 数据` COLLATE utf8mb4_0900_as_cs;

CREATE DATABASE bank;

CREATE UNDO TABLESPACE undo_extra ADD DATAFILE 'undo_extra.ibu';

CREATE TABLESPACE general_one ADD DATAFILE 'general_one.ibd';

CREATE TABLE shop.numbers (n INT PRIMARY KEY);

-- Virtual and stored generated columns, indexed; a multi-valued, a functional and an invisible index.
CREATE TABLE shop.customers (
  id INT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  name VARCHAR(100) NOT NULL,
  doc JSON NOT NULL,
  email VARCHAR(200) AS (CONCAT(LOWER(name), '@example.com')) VIRTUAL,
  city VARCHAR(60) AS (doc ->> '$.city') STORED,
  photo VARBINARY(600),
  active BIT(1) NOT NULL DEFAULT 1,
  credit DECIMAL(12, 2) NOT NULL DEFAULT 0 CHECK (credit >= -1000),
  created TIMESTAMP(6) NOT NULL DEFAULT '2024-01-01 00:00:00',
  KEY by_email (email),
  KEY by_city (city DESC, id),
  KEY by_tag ((CAST(doc -> '$.tags' AS UNSIGNED ARRAY))),
  KEY by_name_length ((CHAR_LENGTH(name))) INVISIBLE
) ROW_FORMAT = DYNAMIC;

CREATE TABLE shop.orders (
  id INT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  customer_id INT UNSIGNED NOT NULL,
  placed DATETIME NOT NULL,
  state ENUM('new', 'paid', 'sent') NOT NULL,
  note VARCHAR(200),
  KEY by_placed (placed),
  CONSTRAINT order_customer FOREIGN KEY (customer_id) REFERENCES shop.customers (id)
) ROW_FORMAT = COMPACT;

CREATE TABLE shop.order_lines (
  order_id INT UNSIGNED NOT NULL,
  line SMALLINT NOT NULL,
  product VARCHAR(80) CHARACTER SET latin1 NOT NULL,
  price DOUBLE,
  PRIMARY KEY (order_id, line),
  KEY by_product (product(10)),
  CONSTRAINT line_order FOREIGN KEY (order_id) REFERENCES shop.orders (id) ON DELETE CASCADE
) ROW_FORMAT = REDUNDANT;

CREATE TABLE shop.visits (
  id INT UNSIGNED NOT NULL,
  day DATE NOT NULL,
  agent VARCHAR(300) NOT NULL,
  PRIMARY KEY (id, day)
)
PARTITION BY RANGE (YEAR(day))
SUBPARTITION BY HASH (id) SUBPARTITIONS 2 (
  PARTITION before_2023 VALUES LESS THAN (2023),
  PARTITION in_2023 VALUES LESS THAN (2024),
  PARTITION later VALUES LESS THAN MAXVALUE
);

CREATE TABLE shop.articles (
  id INT UNSIGNED NOT NULL PRIMARY KEY,
  title VARCHAR(200) NOT NULL,
  body TEXT NOT NULL,
  FULLTEXT KEY words (title, body)
);

CREATE TABLE shop.places (
  id INT UNSIGNED NOT NULL PRIMARY KEY,
  position POINT NOT NULL SRID 4326,
  area POLYGON NOT NULL SRID 0,
  SPATIAL KEY by_position (position),
  SPATIAL KEY by_area (area)
);

CREATE TABLE shop.archive (
  id INT UNSIGNED NOT NULL PRIMARY KEY,
  payload VARBINARY(2000) NOT NULL,
  label VARCHAR(100) NOT NULL,
  KEY by_label (label)
) ROW_FORMAT = COMPRESSED KEY_BLOCK_SIZE = 8;

-- Page compression punches holes into the file.
CREATE TABLE shop.photos (
  id INT UNSIGNED NOT NULL PRIMARY KEY,
  thumbnail BLOB NOT NULL,
  image LONGBLOB NOT NULL
) COMPRESSION = 'zlib';

-- No primary key: the server adds an invisible one, or InnoDB its row id.
CREATE TABLE `odd name; with 'quotes' and spaces`.`table "one"` (
  `column with space` INT UNSIGNED NOT NULL,
  `größe` VARCHAR(300),
  UNIQUE KEY `odd "key"` (`column with space`)
) TABLESPACE = general_one;

CREATE TABLE `schéma 数据`.`строки %&#` (
  id BIGINT UNSIGNED NOT NULL PRIMARY KEY,
  `ключ` VARCHAR(200) NOT NULL,
  payload VARBINARY(2000) NOT NULL,
  KEY `by ключ` (`ключ`)
);

-- The writers move money between these two tables and note it in the ledger; the sum never changes.
CREATE TABLE bank.accounts (
  id INT UNSIGNED NOT NULL PRIMARY KEY,
  balance BIGINT NOT NULL,
  filler CHAR(100) NOT NULL DEFAULT ''
);

CREATE TABLE bank.accounts_packed LIKE bank.accounts;

ALTER TABLE bank.accounts_packed ROW_FORMAT = COMPRESSED;

CREATE TABLE bank.ledger (
  id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  debit INT UNSIGNED NOT NULL,
  credit INT UNSIGNED NOT NULL,
  amount BIGINT NOT NULL
)
PARTITION BY HASH (id) PARTITIONS 4;

CREATE TABLE bank.notes (
  id INT UNSIGNED NOT NULL PRIMARY KEY,
  body BLOB NOT NULL,
  version INT UNSIGNED NOT NULL DEFAULT 0,
  KEY by_version (version)
);

CREATE DATABASE ddl;
