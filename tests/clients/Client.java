// Requests a page over HTTP/2 and HTTP/1.1, and prints the version and the page.
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;

public class Client {
	public static void main(String[] arguments) throws Exception {
		var request = HttpRequest.newBuilder(URI.create(arguments[0])).build();
		for (var version : HttpClient.Version.values()) {
			var client = HttpClient.newBuilder().version(version).build();
			var response = client.send(request, BodyHandlers.ofString());
			System.out.println(response.version() + "\n" + response.body());
		}
	}
}
