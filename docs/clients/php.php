<?php
// usage: php php.php URL SALE, as in php php.php http://127.0.0.1:8080/ticket sale-4711.txt
// Sends a ticket until it is accepted (exit code 0) or rejected for good (1). TICKETD_TOKEN is a source's token, if any.
[, $url, $sale] = $argv;
$key = "$sale.key";
// Made once, and on disk before the first attempt: whatever is sent again, also by a later run, is the same ticket.
if (!file_exists($key)) {
    $file = fopen("$key.new", 'w');
    fwrite($file, bin2hex(random_bytes(16)));
    fsync($file) && rename("$key.new", $key) || exit(2);
}
$headers = ['Content-Type: text/plain', 'Idempotency-Key: ' . file_get_contents($key)];
$headers[] = 'Authorization: Bearer ' . getenv('TICKETD_TOKEN');
$http = ['method' => 'POST', 'header' => $headers, 'content' => file_get_contents($sale), 'timeout' => 15];
$context = stream_context_create(['http' => $http + ['ignore_errors' => true, 'follow_location' => 0]]);
for ($pause = 0.5; ; $pause = min($pause * 2, 60)) {
    $http_response_header = [];
    $text = @file_get_contents($url, false, $context);
    $head = implode("\n", $http_response_header);
    // Without a status there was no answer: it may have arrived all the same.
    $status = preg_match('~^HTTP/\S+ (\d{3})~', $head, $found) ? (int) $found[1] : 0;
    if ($status === 202) {
        exit($text . PHP_EOL);
    } elseif ($status > 0 && $status < 500 && !in_array($status, [408, 429])) {
        fwrite(STDERR, "rejected: $text\n") && exit(1);
    }
    $wait = preg_match('~^Retry-After: ([1-9]\d{0,2})$~mi', $head, $found) ? $found[1] : $pause;
    usleep((int) ($wait * random_int(1_000_000, 2_000_000))); // Else all senders would return at once.
}
