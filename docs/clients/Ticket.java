// usage: java Ticket.java URL SALE, as in java Ticket.java http://127.0.0.1:8080/ticket sale-4711.txt
// Sends a ticket until it is accepted (exit code 0) or rejected for good (1). TICKETD_TOKEN is a source's token, if any.
import static java.nio.file.StandardOpenOption.*;

import java.net.URI;
import java.net.http.*;
import java.nio.file.*;
import java.util.UUID;
import java.util.concurrent.*;

class Ticket {
    public static void main(String[] args) throws Exception {
        Path sale = Path.of(args[1]), key = Path.of(args[1] + ".key"), fresh = Path.of(args[1] + ".key.new");
        // Made once, and on disk before the first attempt: whatever is sent again, also by a later run, is the same ticket.
        if (Files.notExists(key)) {
            Files.writeString(fresh, UUID.randomUUID().toString(), CREATE, TRUNCATE_EXISTING, WRITE, SYNC);
            Files.move(fresh, key, StandardCopyOption.ATOMIC_MOVE);
        }
        String token = System.getenv().getOrDefault("TICKETD_TOKEN", "");
        HttpRequest request = HttpRequest.newBuilder(URI.create(args[0])).version(HttpClient.Version.HTTP_1_1)
            .headers("Content-Type", "text/plain", "Authorization", "Bearer " + token, "Idempotency-Key", Files.readString(key))
            .POST(HttpRequest.BodyPublishers.ofByteArray(Files.readAllBytes(sale))).build();
        HttpClient client = HttpClient.newHttpClient();
        for (double pause = 0.5; ; pause = Math.min(pause * 2, 60)) {
            String after = "";
            try {
                var answer = client.sendAsync(request, HttpResponse.BodyHandlers.ofString()).get(15, TimeUnit.SECONDS);
                int status = answer.statusCode();
                if (status == 202 || status < 500 && status != 408 && status != 429) {
                    (status == 202 ? System.out : System.err).println((status == 202 ? "" : "rejected: ") + answer.body());
                    System.exit(status == 202 ? 0 : 1);
                }
                after = answer.headers().firstValue("Retry-After").orElse("");
            } catch (ExecutionException | TimeoutException noAnswer) {
                // Or not all of it: the ticket may have arrived all the same.
            }
            double wait = after.matches("[1-9][0-9]{0,2}") ? Integer.parseInt(after) : pause;
            Thread.sleep((long) (wait * 1000 * (1 + Math.random()))); // Else all senders would return at once.
        }
    }
}
