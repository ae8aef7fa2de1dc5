-- SPDX-License-Identifier: GPL-2.0-only
-- What is not a table, and the rows of fixed number. Run once the tables are filled.
INSERT INTO bank.accounts (id, balance) SELECT n, 1000 FROM shop.numbers WHERE n < 200;

INSERT INTO bank.accounts_packed (id, balance) SELECT n + 200, 1000 FROM shop.numbers WHERE n < 200;

INSERT INTO bank.notes (id, body) SELECT n, RANDOM_BYTES(1000) FROM shop.numbers WHERE n < 500;

DELETE FROM shop.articles WHERE id % 10 = 3;

ANALYZE TABLE shop.orders UPDATE HISTOGRAM ON state WITH 4 BUCKETS;

CREATE VIEW shop.open_orders AS
SELECT o.id, c.email FROM shop.orders AS o JOIN shop.customers AS c ON c.id = o.customer_id
WHERE o.state = 'new';

CREATE TABLE shop.audit (
  id INT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  order_id INT UNSIGNED NOT NULL,
  what VARCHAR(20) NOT NULL
);

CREATE TRIGGER shop.order_changed AFTER UPDATE ON shop.orders FOR EACH ROW
INSERT INTO shop.audit (order_id, what) VALUES (NEW.id, CONCAT(OLD.state, ' > ', NEW.state));

CREATE PROCEDURE shop.pay (IN which INT)
  COMMENT 'marks an order as paid'
BEGIN
  UPDATE shop.orders SET state = 'paid' WHERE id = which;
END;

CREATE FUNCTION `schéma 数据`.`größe` (text_ VARCHAR(100)) RETURNS INT DETERMINISTIC
RETURN CHAR_LENGTH(text_);

CREATE EVENT shop.yearly ON SCHEDULE EVERY 1 YEAR STARTS '2037-01-01 00:00:00' DO DELETE FROM shop.audit;

CREATE ROLE 'shop reader', shop_writer;

GRANT SELECT, SHOW VIEW ON shop.* TO 'shop reader';

GRANT INSERT, UPDATE, EXECUTE ON shop.* TO shop_writer;

GRANT 'shop reader' TO shop_writer WITH ADMIN OPTION;

CREATE USER 'shop app'@'%' IDENTIFIED BY 'p w' DEFAULT ROLE shop_writer
  WITH MAX_USER_CONNECTIONS 20 PASSWORD EXPIRE NEVER /*!80021 COMMENT 'the web shop' */;

CREATE USER `auditor`@`10.0.0.0/255.0.0.0` IDENTIFIED BY 'x' ACCOUNT LOCK;

GRANT SELECT (id, name), REFERENCES ON shop.customers TO `auditor`@`10.0.0.0/255.0.0.0`;

GRANT BACKUP_ADMIN ON *.* TO `auditor`@`10.0.0.0/255.0.0.0`;
