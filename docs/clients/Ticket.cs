// usage: dotnet run Ticket.cs URL SALE (.NET 10), as in dotnet run Ticket.cs http://127.0.0.1:8080/ticket sale-4711.txt
// Sends a ticket until it is accepted (exit code 0) or rejected for good (1). TICKETD_TOKEN is a source's token, if any.
using System.Net.Http.Headers;
using System.Text;

var (url, sale, key) = (args[0], args[1], args[1] + ".key");
// Made once, and on disk before the first attempt: whatever is sent again, also by a later run, is the same ticket.
if (!File.Exists(key))
{
    using (var file = new FileStream(key + ".new", FileMode.Create, FileAccess.Write, FileShare.None, 4096, FileOptions.WriteThrough))
        file.Write(Encoding.ASCII.GetBytes(Guid.NewGuid().ToString()));
    File.Move(key + ".new", key);
}
using var client = new HttpClient(new HttpClientHandler { AllowAutoRedirect = false }) { Timeout = TimeSpan.FromSeconds(15) };
client.DefaultRequestHeaders.Authorization = new AuthenticationHeaderValue("Bearer", Environment.GetEnvironmentVariable("TICKETD_TOKEN"));
client.DefaultRequestHeaders.Add("Idempotency-Key", File.ReadAllText(key));
for (var pause = 0.5; ; pause = Math.Min(pause * 2, 60))
{
    var wait = pause;
    try
    {
        var body = new ByteArrayContent(File.ReadAllBytes(sale)) { Headers = { ContentType = new("text/plain") } };
        using var answer = await client.PostAsync(url, body);
        var (status, text) = ((int)answer.StatusCode, await answer.Content.ReadAsStringAsync());
        if (status == 202 || (status < 500 && status is not (408 or 429)))
        {
            (status == 202 ? Console.Out : Console.Error).WriteLine(status == 202 ? text : $"rejected: {text}");
            return status == 202 ? 0 : 1;
        }
        if (answer.Headers.RetryAfter?.Delta is { TotalSeconds: > 0 and < 1000 } after) wait = after.TotalSeconds;
    }
    catch (Exception e) when (e is HttpRequestException or TaskCanceledException) { } // It may have arrived all the same.
    await Task.Delay(TimeSpan.FromSeconds(wait * (1 + Random.Shared.NextDouble()))); // Else all senders would return at once.
}
