-- SPDX-License-Identifier: GPL-2.0-only
-- Adds one round of rows with ids @first + 1 .. @first + @rows. About 9 KiB for each @rows.
INSERT INTO shop.customers (id, name, doc, photo, active, credit)
SELECT @first + n + 1,
  CONCAT(ELT(1 + n % 4, 'Ægir', 'José', '李', 'Zoë'), ' ', SHA2(@first + n, 224)),
  JSON_OBJECT('city', CONCAT('city ', n % 97), 'tags', JSON_ARRAY(n % 7, n % 31, n),
    'text', REPEAT('json ', n % 40)),
  IF(n % 5 = 0, NULL, RANDOM_BYTES(100 + n % 500)), n % 2, n % 1000
FROM shop.numbers WHERE n < @rows;

INSERT INTO shop.orders (id, customer_id, placed, state, note)
SELECT @first + n + 1, 1 + ((@first + n) * 7919) % (@first + @rows),
  '2023-01-01' + INTERVAL n HOUR, ELT(1 + n % 3, 'new', 'paid', 'sent'),
  IF(n % 3 = 0, NULL, REPEAT('note ', n % 30))
FROM shop.numbers WHERE n < @rows;

INSERT INTO shop.order_lines
SELECT @first + n + 1, line, CONCAT('product ', SHA2(n, 224)), n / 7
FROM shop.numbers, (SELECT n AS line FROM shop.numbers WHERE n < 3) AS lines_ WHERE n < @rows;

INSERT INTO shop.visits
SELECT @first + n + 1, '2022-01-01' + INTERVAL n % 1400 DAY, REPEAT(SHA2(n, 256), 1 + n % 4)
FROM shop.numbers WHERE n < @rows;

INSERT INTO shop.articles
SELECT @first + n + 1, CONCAT('About ', ELT(1 + n % 5, 'chunks', 'pages', 'redo', 'undo', 'blocks')),
  CONCAT_WS(' ', 'donor', SHA2(n % 50, 224), 'recipient', CONV(@first + n, 10, 36), 'snapshot')
FROM shop.numbers WHERE n < @rows DIV 4;

INSERT INTO shop.places
SELECT @first + n + 1, ST_SRID(POINT((@first + n) % 360 - 179, n % 180 - 89), 4326),
  ST_GeomFromText(CONCAT('POLYGON((', n, ' 0,', n + 5, ' 0,', n + 5, ' 5,', n, ' 5,', n, ' 0))'))
FROM shop.numbers WHERE n < @rows;

INSERT INTO shop.archive
SELECT @first + n + 1, CONCAT(RANDOM_BYTES(400), REPEAT('compressible ', 40)), SHA2(n, 256)
FROM shop.numbers WHERE n < @rows;

-- One large and some small images.
INSERT INTO shop.photos
SELECT @first + n + 1, RANDOM_BYTES(700),
  REPEAT(CONCAT(RANDOM_BYTES(500), REPEAT('blue sky ', 100)), IF(n = 0, 800, 1 + n % 12))
FROM shop.numbers WHERE n < @rows DIV 4;

INSERT INTO `odd name; with 'quotes' and spaces`.`table "one"`
SELECT @first + n + 1, IF(n % 11 = 0, NULL, REPEAT('größe ', n % 50))
FROM shop.numbers WHERE n < @rows;

INSERT INTO `schéma 数据`.`строки %&#`
SELECT @first + n + 1, CONCAT('ключ ', SHA2(@first + n, 256)),
  CONCAT(RANDOM_BYTES(1000), RANDOM_BYTES(900))
FROM shop.numbers WHERE n < @rows;
