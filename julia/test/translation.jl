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

    @testset "what has no translation is named" begin
        @test_throws "layer 1.0 is a" from_flux(Chain(Dense(2 => 2), Chain(x -> x)))
        @test_throws "connects with" from_flux(Chain(SkipConnection(Dense(2 => 2), vcat)))
        @test_throws "training mode" from_flux(Chain(trainmode!(BatchNorm(2))))
        @test_throws "has no name" from_flux(Chain(Dense(2 => 2, x -> x^2)))
        @test_throws "the same on both sides" from_flux(Chain(Conv((2,), 1 => 1; pad=(0, 1)), softmax))
        @test_throws "Float32 and Float64" from_flux(Chain(Dense(2 => 2), f64(Dense(2 => 2))))
        shared = Dense(2 => 2)
        @test_throws "one shared array" from_flux(Chain(shared, shared))
        @test_throws "there is no model file" UDLBridge.load("nowhere.safetensors")
        @test_throws "does not know the parameters of a LayerNorm" ntk(Chain(LayerNorm(2)), randn(Float32, 2, 3))
    end
end
