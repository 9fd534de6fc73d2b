@testset "translation and files" begin
    rng = Xoshiro(5)
    shaken(layer) = f64(Flux.fmap(a -> a isa AbstractArray ? a .+ 0.1f0 .* rand(rng, Float32, size(a)) : a, layer))
    chains = [
        "images" => (Chain(Conv((3, 2), 2 => 4, tanh; stride=(2, 1), pad=(1, 0)), BatchNorm(4, relu), MaxPool((2, 1)),
                Chain(Conv((1, 1), 4 => 4; groups=2), GroupNorm(4, 2)),
                SkipConnection(Chain(CrossCor((3, 3), 4 => 4; pad=1), LayerNorm((1, 4, 4); eps=0.1f0)), +),
                Parallel(+, Conv((1, 1), 4 => 2; bias=false), Chain(Conv((1, 1), 4 => 2), Dropout(0.2))),
                MeanPool((1, 2)), GlobalMeanPool(), Flux.flatten, Dense(2 => 3, swish), logsoftmax), (4, 5, 2, 3)),
        "series" => (Chain(Conv((3,), 2 => 3, elu; dilation=2), Flux.flatten, Dense(18 => 2; bias=false), softmax),
            (10, 2, 4)),
        "zeros on one side" => (Chain(Conv((3, 2), 2 => 3, tanh; pad=(2, 0, 0, 1)), Flux.flatten, Dense(60 => 2)),
            (5, 4, 2, 3)),
    ]
    @testset "$name" for (name, (chain, size)) in chains
        chain = Flux.testmode!(shaken(chain))
        X = randn(rng, size...)
        again = to_flux(from_flux(chain))
        @test gap(again(X), chain(X)) < 1e-14
        mktempdir() do folder
            path = UDLBridge.save(chain, joinpath(folder, "model.safetensors"))
            @test readdir(folder) == ["model.safetensors"]
            loaded = UDLBridge.load(path)
            @test loaded(X) == again(X)
            @test first.(parameters(loaded)) == first.(parameters(again))
            bytes = read(path)
            write(path, bytes[1:(end - 8)])
            @test_throws "cut off" UDLBridge.load(path)
            write(path, bytes[1:20])
            @test_throws "header is cut off" UDLBridge.load(path)
            write(path, replace(String(copy(bytes)), "\\\"format\\\":1" => "\\\"format\\\":9"))
            @test_throws "has format 9" UDLBridge.load(path)
        end
        @test gap(ntk(again, X), ntk(again, X; method=:plain)) < 1e-12
    end

    @testset "functions that are one of the activations" begin
        W = randn(rng, 4, 4)
        X = randn(rng, 4, 3)
        for (σ, name) in ((NNlib.sigmoid_fast, "sigmoid"), (NNlib.tanh_fast, "tanh"), (z -> leakyrelu(z, 0.01), "leakyrelu"),
            (Base.Fix2(elu, 1), "elu"), (z -> softplus(z), "softplus"))

            model = from_flux(Chain(Dense(W, false, σ), softmax))
            @test model.spec["layers"][1]["activation"] == name
        end
        @test from_flux(Dense(f32(W), false, z -> leakyrelu(z, 0.01f0))).spec["layers"][1]["activation"] == "leakyrelu"
        for layer in (relu, Base.Broadcast.BroadcastFunction(relu))
            model = from_flux(Chain(Dense(W, false), layer))
            @test model.spec["layers"][2] == Dict("kind" => "activation", "activation" => "relu")
            @test to_flux(model)(X) == relu.(W * X)
        end
        # Another slope, and the right values with another derivative at the kink.
        @test_throws "has no name; known, with their default settings" from_flux(Dense(W, false, z -> leakyrelu(z, 0.2)))
        @test_throws "has no name" from_flux(Dense(W, false, z -> z >= 0 ? z : zero(z)))
        # Others that part from a known one only at large numbers.
        for bounded in (z -> clamp(z, 0, 100), z -> min(z, 1e6), z -> max(z, oftype(z, -100)))
            @test_throws "has no name" from_flux(Dense(W, false, bounded))
        end
        @test_throws "layer 0 is the function tanh" from_flux(Chain(tanh))
        @test_throws "Float16; allowed: all Float32 or all Float64" from_flux(Chain(Dense(Float16.(W))))
    end

    @testset "what has no translation is named" begin
        @test_throws "layer 1.0 is the function" from_flux(Chain(Dense(2 => 2), Chain(x -> x)))
        @test_throws "connects with" from_flux(Chain(SkipConnection(Dense(2 => 2), vcat)))
        @test_throws "training mode" from_flux(Chain(trainmode!(BatchNorm(2))))
        @test_throws "has no name" from_flux(Chain(Dense(2 => 2, x -> x^2)))
        @test_throws "the same on both sides" from_flux(Chain(MeanPool((2,); pad=(0, 1)), softmax))
        @test_throws "Float32 and Float64" from_flux(Chain(Dense(2 => 2), f64(Dense(2 => 2))))
        shared = Dense(2 => 2)
        @test_throws "one shared array" from_flux(Chain(shared, shared))
        @test_throws "there is no model file" UDLBridge.load("nowhere.safetensors")
        mktempdir() do folder
            path = joinpath(folder, "net.safetensors")
            UDLBridge.save(Chain(Dense(2 => 2)), path)
            @test readdir(folder) == ["net.safetensors"]
            bytes = read(path)
            size = Int(only(reinterpret(UInt64, bytes[1:8])))
            text, numbers = String(bytes[9:(8 + size)]), bytes[(9 + size):end]
            reversed(text, pair) = (found = replace(text, pair); found == text ? error("nothing to damage") : found)
            damaged = ["[]", "null", "{}", text[1:(end ÷ 2)], """{"__metadata__": 3}""", """{"__metadata__": {"udlbridge": "3"}}""",
                """{"__metadata__": {"udlbridge": "{"}}""", reversed(text, "\"F32\"" => "\"F8\""), reversed(text, "\"F32\"" => "7"),
                reversed(text, "\"shape\":[2,2]" => "\"shape\":[2,-2]"), reversed(text, "\"shape\":[2,2]" => "\"shape\":[2,3]"),
                reversed(text, "\"shape\":[2,2]" => "\"shape\":\"x\""), reversed(text, "data_offsets" => "offsets"),
                reversed(text, r"\"data_offsets\":\[0," => "\"data_offsets\":[-8,")]
            for header in damaged
                write(path, htol(UInt64(ncodeunits(header))), header, numbers)
                @test_throws ArgumentError UDLBridge.load(path)
            end
            for count in (0, 5, 20, length(bytes) - 3)
                write(path, bytes[1:count])
                @test_throws ArgumentError UDLBridge.load(path)
            end
        end
    end
end
